"""An application whose process runs out of memory when it is asked to.

`/KIND?at=N&count=M`: allocations N to N + M fail, counted from when the answer
is made. They go on failing in the following requests, until one without a
query reaches the application. KIND is what the answer is made of.
"""

import _testcapi
import gc
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

LARGE = bytes(300_000)
FILE = Path(__file__)


class Closing:
    """Three pieces, and a close()."""

    def __init__(self) -> None:
        self._pieces = iter((b"one ", b"two ", b"three"))

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._pieces = iter(())


def pieces() -> Iterator[bytes]:
    yield b"one "
    yield b""
    yield b"two"


def body_of(environ: WSGIEnvironment) -> Iterable[bytes]:
    """Read in each way there is."""
    stream = environ["wsgi.input"]
    return [stream.read(1), stream.readline(), *stream.readlines(5), *stream, stream.read()]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    _testcapi.remove_mem_hooks()
    logging.disable(logging.ERROR)  # else most of what allocates would be tracebacks
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    headers = [("Content-Type", "text/plain"), ("X-Some", "field")]
    if query:
        at, count = int(query["at"]), int(query["count"])
        _testcapi.set_nomemory(at, at + count)
    write = start_response("200 OK", headers)
    match environ["PATH_INFO"]:
        case "/list":
            return [b"one ", b"two"]
        case "/pieces":
            return pieces()
        case "/closing":
            return Closing()
        case "/write":
            write(b"one ")
            write(b"two ")
            return [b"three"]
        case "/large":
            return [LARGE]
        case "/file":
            return environ["wsgi.file_wrapper"](FILE.open("rb"))
        case "/no-file":
            return environ["wsgi.file_wrapper"](io.BytesIO(b"of no file"))
        case "/body":
            return body_of(environ)
        case "/living":
            gc.collect()
            return [b"%d" % sys.getallocatedblocks()]
    raise LookupError(environ["PATH_INFO"])
