"""Computes for so long that a client would sleep meanwhile, and answers in every way."""

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.gate import wait_at_gate

ROUNDS = 10_000


class Closing:
    """As frameworks wrap what they give: one piece, then the request's end."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        """Does nothing."""


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """/WAY?WORD answers with the word, in that way."""
    way = environ["PATH_INFO"]
    body = environ["QUERY_STRING"].encode()
    if way == "/hold":
        wait_at_gate("gate")
    if way == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "/grip":
        _wait_with_the_lock()
    if way == "/child":
        _leave_a_child()
    sum(range(ROUNDS))
    length = [] if way == "/chunked" else [("Content-Length", str(len(body)))]
    write = start_response("200 OK", [("Content-Type", "text/plain"), *length])
    if way == "/write":
        write(body)
        return []
    if way == "/pieces":
        return iter([body[:1], body[1:]])
    if way in ("/closing", "/chunked"):
        return Closing(body)
    return [body]


def _wait_with_the_lock() -> None:
    """In C, with the GIL, until the gate lets us go."""
    with (Path(os.environ["PROBE_DIR"]) / "gate.fifo").open("rb", buffering=0) as fifo:
        (Path(os.environ["PROBE_DIR"]) / "gripped").touch()
        ctypes.PyDLL(None).read(fifo.fileno(), ctypes.create_string_buffer(1), 1)


def _leave_a_child() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
