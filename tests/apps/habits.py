"""An application with habits of its own: what it does at import stands in HABIT."""

import asyncio
import atexit
import logging
import logging.config
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from wsgiref.types import StartResponse, WSGIEnvironment

PLAIN = [("Content-Type", "text/plain")]
HABIT = os.environ.get("HABIT")

_log = logging.getLogger("app")


def print_something() -> None:
    print("a line of the application")
    print("and a part of one", end="")


def log_much() -> None:
    for _ in range(100):
        logging.getLogger("poolsrv").warning("x" * 4000)


def configure_logging() -> None:
    logging.config.dictConfig({"version": 1})
    logging.disable(logging.CRITICAL)


def handle_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


def raise_in_a_handler() -> None:
    def handle(*_: object) -> None:
        raise ValueError("in a handler of the application")

    signal.signal(signal.SIGUSR2, handle)


def handle_by_asyncio() -> None:
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    loop.close()


def reset_wakeup() -> None:
    signal.set_wakeup_fd(-1)


def patch_threads() -> None:
    found = SimpleNamespace(is_module_patched=lambda name: name == "threading")
    sys.modules["gevent.monkey"] = found  # type: ignore[assignment]


def start_no_threads() -> None:
    start, started = threading.Thread.start, []

    def limited(self: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    threading.Thread.start = limited  # type: ignore[method-assign]


def leave_a_thread() -> None:
    def idle() -> None:
        time.sleep(3600)

    def note() -> None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        (Path(os.environ["PROBE_DIR"]) / "at_exit").write_text(f"done, niceness {nice}")

    atexit.register(note)
    threading.Thread(target=idle, name="idler").start()


_kept = (Path(os.environ["PROBE_DIR"]) / "written").open("a") if HABIT == "keep_open" else None
if HABIT and HABIT in globals():
    globals()[HABIT]()


def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    match environ["PATH_INFO"]:
        case "/fail":
            raise ValueError("as asked")
        case "/configure":
            configure_logging()
        case "/errors":
            environ["wsgi.errors"].write("one\n  and two\n")
        case "/logging":
            handler = logging.StreamHandler(environ["wsgi.errors"])
            handler.emit(logging.LogRecord("app", logging.INFO, "", 0, "said\nmore", (), None))
        case "/much":
            for _ in range(100):
                environ["wsgi.errors"].write("x" * 4000 + "\n")
        case "/keep":
            assert _kept is not None
            _kept.write("kept")
    start("200 OK", PLAIN)
    return [str(os.getpid()).encode()]
