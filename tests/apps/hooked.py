"""Writes down which of its hooks were called, and where."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import poolsrv

_FILE = Path(os.environ["PROBE_DIR"]) / "hooks"


def _note(what: str) -> None:
    with _FILE.open("a") as file:
        file.write(f"{what} {os.getpid()}\n")


def template_ready() -> None:
    _note("template")


def worker_start() -> None:
    _note("start")
    if poolsrv.once("first worker"):
        _note("once")


def worker_stop() -> None:
    _note("stop")


def service_start() -> None:
    _note("service")


def fails() -> None:
    raise RuntimeError("no database")


if os.environ.get("THREAD"):
    threading.Thread(target=threading.Event().wait, name="ticker", daemon=True).start()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]
