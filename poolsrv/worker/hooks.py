"""Functions of the application that are called when a process begins or ends its work.

Runs in workers and templates, on their main thread.
"""

import os
import threading

from poolsrv.errors import ApplicationError
from poolsrv.worker.loader import call_named


def run_hook(option: str, spec: str | None) -> None:
    """Call the function that `--option` names, if it does. Raises ApplicationError."""
    if spec is not None:
        call_named(f"--{option} {spec}", spec)


def refuse_threads() -> None:
    """Raises ApplicationError if this process, which is to be forked, has more than one thread."""
    count = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - no more than their number
    if count == 1:
        return
    names = [thread.name for thread in threading.enumerate() if thread.ident != _main()]
    said = f" ({', '.join(names)})" if names else ""
    raise ApplicationError(
        f"--preload: importing the application started {count - 1} more thread"
        f"{'s' if count > 2 else ''}{said}, and workers that are forked would not have them, "
        "or wait for ever for a lock that one of them held",
        "start threads in --on-worker-start, or leave --preload out",
    )


def _main() -> int | None:
    return threading.main_thread().ident
