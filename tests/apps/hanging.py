"""An application that hangs in the ways in which applications do."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from poolsrv import RequestTimeout

Environ = dict[str, Any]
Start = Callable[..., Any]

_never = threading.Lock()
_never.acquire()
_pipe = os.pipe()


def _sleep() -> None:
    time.sleep(3600)


def _loop() -> None:
    while True:
        pass


def _read() -> None:
    os.read(_pipe[0], 1)


def _lock() -> None:
    with _never:
        raise AssertionError


def _regex() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


def _swallow() -> None:
    """Catches what is raised in it, and goes on."""
    while True:
        try:
            _loop()
        except RequestTimeout:
            continue


HANGS = {
    "/sleep": _sleep,
    "/loop": _loop,
    "/read": _read,
    "/lock": _lock,
    "/regex": _regex,
    "/swallow": _swallow,
}


def _begun(hang: Callable[[], None]) -> Iterator[bytes]:
    yield b"begun"
    hang()


def _slowly(pieces: int) -> Iterator[bytes]:
    for _ in range(pieces):
        time.sleep(0.1)
        yield b"piece"


def _cleaned() -> bytes:
    try:
        _loop()
    except RequestTimeout:
        return b"cleaned up"
    return b""


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "text/plain")]
    if path == "/begun":
        start_response("200 OK", headers)
        return _begun(_loop)
    if path == "/begun/sleep":
        start_response("200 OK", headers)
        return _begun(_sleep)
    if path == "/slowly":
        start_response("200 OK", headers)
        return _slowly(20)
    if path == "/upload":
        start_response("200 OK", headers)
        read = 0
        while piece := environ["wsgi.input"].read(1):
            read += len(piece)
            time.sleep(0.1)
        return [str(read).encode()]
    if path == "/patient":
        environ["poolsrv.set_timeout"](0)
        time.sleep(1.5)
    elif path == "/busy":
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass
    elif path == "/impatient":
        environ["poolsrv.set_timeout"](0.1)
        _loop()
    elif path == "/cleaned":
        body = _cleaned()
        start_response("200 OK", headers)
        return [body]
    elif path in HANGS:
        HANGS[path]()
    start_response("200 OK", headers)
    return [b"fine"]
