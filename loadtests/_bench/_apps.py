"""The applications that servers are measured with. Standard library only.

Plain callables without state, so that any server can serve any of them, and
calling one in process gives the answer that every server must give.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

# The file to send: a path, set by whoever starts the server.
FILE_VARIABLE = "BENCH_FILE"

SLEEP_SECONDS = 0.01

# About 1 ms of bytecode on a core of 2024. A number, not a clock: every server
# is given the same work, whoever else wants the core.
_CPU_ROUNDS = 50_000

_LINE = b"x" * 1023 + b"\n"


def _answer(start_response: StartResponse, body: bytes, kind: str = "text/plain") -> list[bytes]:
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def hello(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return _answer(start_response, b"Hello, World!")


def document(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    rows = [{"id": i, "name": f"thing {i}", "price": i * 1.25, "on": True} for i in range(20)]
    return _answer(start_response, json.dumps({"rows": rows}).encode(), "application/json")


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return _answer(start_response, b"%d" % len(body))


def stream(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """100 KiB in pieces, of unknown length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (_LINE for _ in range(100))


def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    sent = Path(os.environ[FILE_VARIABLE]).open("rb")  # noqa: SIM115 - the server closes it
    size = os.fstat(sent.fileno()).st_size
    start_response(
        "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))]
    )
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(sent, 65536) if wrapper else sent


def sleep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(SLEEP_SECONDS)
    return hello(environ, start_response)


def cpu(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    rounds = 0
    for number in range(_CPU_ROUNDS):
        rounds ^= number
    return hello(environ, start_response)


def mixed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """/sleep waits. The answer is the query: it tells the client which request it was."""
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(SLEEP_SECONDS)
    return _answer(start_response, environ.get("QUERY_STRING", "").encode())


def timed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Waits as long as the query says, in seconds."""
    time.sleep(float(environ.get("QUERY_STRING") or 0))
    return hello(environ, start_response)


def held(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Says in which process it is, then sleeps or computes for as long as the query says."""
    start_response("200 OK", [("Content-Length", "2"), ("X-Worker", str(os.getpid()))])
    return _held(environ["PATH_INFO"], float(environ.get("QUERY_STRING") or 0))


def _held(path: str, seconds: float) -> Iterator[bytes]:
    yield b"o"
    if path == "/sleep":
        time.sleep(seconds)
    elif path == "/compute":
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    yield b"k"


def counted(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Computes for as many rounds as the query says."""
    rounds = 0
    for number in range(int(environ.get("QUERY_STRING") or 0)):
        rounds ^= number
    return hello(environ, start_response)
