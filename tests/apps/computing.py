"""Computes for so long that a client would sleep meanwhile, and answers in every way."""

import os
from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.gate import wait_at_gate

ROUNDS = 20_000


class Closing:
    """As frameworks wrap what they give: one piece, then the request's end."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        sum(range(ROUNDS))


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """/WAY?WORD answers with the word, in that way."""
    way = environ["PATH_INFO"]
    body = environ["QUERY_STRING"].encode()
    if way == "/hold":
        wait_at_gate("gate")
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


def _leave_a_child() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
