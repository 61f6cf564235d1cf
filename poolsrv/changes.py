"""Tells the supervisor to reload when the application's code changes: --reload-on-change.

The watcher: a process of its own, which runs no code of the application, so that it outlives
each edit that cannot be loaded. It watches the folders that the application is imported
from, not the files of loaded modules: what is new, and what a broken module would have
imported, counts as well.
"""

import importlib.util
import logging
import os
import select
import signal
import threading
from pathlib import Path

from poolsrv import operator_messages as say
from poolsrv.errors import ConfigError
from poolsrv.settings.groups import groups_of
from poolsrv.settings.mounts import applications
from poolsrv.settings.rows import Settings
from poolsrv.system.processes import send_signal

_log = logging.getLogger("poolsrv")

_CODE = (".py", ".wsgi")


def require() -> None:
    """Raises ConfigError if the library is missing."""
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError(
            "reload-on-change: the package watchfiles is not installed",
            "pip install 'poolsrv[watch]'",
        )


def folders(settings: Settings, started_in: str) -> list[Path]:
    """Those that the application is imported from; none lies within another."""
    found: set[Path] = set()
    for group in groups_of(settings):
        base = Path(started_in, group.settings.chdir or "").resolve()
        found.add(base)
        found.update(base.joinpath(folder).resolve() for folder in group.settings.pythonpath)
        for spec in applications(group.settings.own_mounts()):
            script = base / spec.partition(":")[0]
            if script.is_file():
                found.add(script.resolve().parent)
    return sorted(
        folder
        for folder in found
        if folder.is_dir() and not any(other in folder.parents for other in found)
    )


def watch(watched: list[Path], supervisor: int) -> None:
    """The whole life of the watcher; `supervisor` is the pidfd of the process that it tells."""
    threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()
    try:
        import watchfiles

        found = watchfiles.PythonFilter(extra_extensions=_CODE)
        _log.info(say.WATCHES, ", ".join(map(str, watched)))
        for changes in watchfiles.watch(*watched, watch_filter=found):
            names = sorted({Path(path).name for _, path in changes})
            _log.info(say.CODE_CHANGED, ", ".join(names))
            send_signal(supervisor, signal.SIGHUP)
    except Exception:  # noqa: BLE001 - whatever it was, the developer must know
        _log.critical(say.WATCHES_NO_MORE, exc_info=True)


def _end_with(process: int) -> None:
    select.select([process], [], [])
    os._exit(0)
