"""An application that shows what the server does: one path for each property.

Files it leaves or reads are in the directory that PROBE_DIR names.
"""

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.validate import validator

from tests.apps.gate import wait_at_gate

PLAIN = [("Content-Type", "text/plain")]


def recorded(name: str, line: str) -> None:
    with (Path(os.environ["PROBE_DIR"]) / name).open("a") as file:
        file.write(line + "\n")


class Request(NamedTuple):
    environ: WSGIEnvironment
    start: StartResponse
    query: dict[str, str]


class Closing:
    """An iterable whose close() leaves a line in the file `name`."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self._chunks = iter(chunks)
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        recorded(self._name, "closed")


def show_environ(request: Request) -> Iterable[bytes]:
    simple = {
        key: value
        for key, value in request.environ.items()
        if isinstance(value, str | bool | tuple)
    }
    request.start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(simple).encode()]


def show_process(request: Request) -> Iterable[bytes]:
    request.start("200 OK", PLAIN)
    return [f"{os.getpid()} {threading.get_native_id()}".encode()]


def ignore_input(request: Request) -> Iterable[bytes]:
    request.start("200 OK", PLAIN)
    return [b"not read"]


def echo(request: Request) -> Iterable[bytes]:
    request.start("200 OK", PLAIN)
    return [request.environ["wsgi.input"].read()]


def call_input(request: Request) -> Iterable[bytes]:
    """`calls` is a JSON list of [method, argument...]; answers the list of results."""

    def plain(result: bytes | list[bytes]) -> str | list[str]:
        if isinstance(result, bytes):
            return result.decode("latin-1")
        return [line.decode("latin-1") for line in result]

    stream = request.environ["wsgi.input"]
    methods: dict[str, Callable[..., bytes | list[bytes]]] = {
        "read": stream.read,
        "readline": stream.readline,
        "readlines": stream.readlines,
        "list": lambda: list(stream),
        "next": lambda: next(iter(stream)),
    }
    results = [
        plain(methods[method](*given)) for method, *given in json.loads(request.query["calls"])
    ]
    request.start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(results).encode()]


def answer(request: Request) -> Iterable[bytes]:
    """`status`, `name` and `value` of one more header, `body`."""
    query = request.query
    headers = [(query["name"], query.get("value", ""))] if "name" in query else []
    request.start(query.get("status", "200 OK"), headers)
    return [query.get("body", "").encode("latin-1")]


def stream(request: Request) -> Iterable[bytes]:
    """`count` chunks of `size` bytes, without a length."""
    request.start("200 OK", PLAIN)
    chunk = b"x" * int(request.query.get("size", "10"))
    return Closing((chunk for _ in range(int(request.query["count"]))), "stream")


def declare(request: Request) -> Iterable[bytes]:
    """Content-Length `length`; the chunks of `body`, separated by commas."""
    request.start("200 OK", [*PLAIN, ("Content-Length", request.query["length"])])
    return Closing((part.encode() for part in request.query["body"].split(",")), "declare")


def write(request: Request) -> Iterable[bytes]:
    send = request.start("200 OK", PLAIN)
    send(b"written ")
    send(b"twice, ")
    return [b"then returned"]


def start_twice(request: Request) -> Iterable[bytes]:
    request.start("200 OK", PLAIN)
    request.start("201 Created", PLAIN)
    return [b"never"]


def start_again(request: Request) -> Iterable[bytes]:
    """Replaces the status with exc_info while nothing is sent."""
    request.start("200 OK", [*PLAIN, ("X-First", "1")])
    try:
        raise ValueError("on purpose")
    except ValueError:
        request.start("409 Conflict", [*PLAIN, ("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def start_too_late(request: Request) -> Iterable[bytes]:
    """Gives exc_info after the first chunk: start_response must raise it again."""
    request.start("200 OK", PLAIN)
    yield b"first"
    try:
        raise ValueError("too late on purpose")
    except ValueError:
        request.start("500 Internal Server Error", PLAIN, sys.exc_info())
    yield b"never"


def never_start(request: Request) -> Iterable[bytes]:
    return [b"without start_response"]


def start_late(request: Request) -> Iterator[bytes]:
    """A generator: start_response is called on the way to the first chunk."""
    request.start("200 OK", PLAIN)
    yield b""
    yield b"late"


def fail(request: Request) -> Iterable[bytes]:
    raise RuntimeError("failed on purpose")


def fail_late(request: Request) -> Iterable[bytes]:
    request.start("200 OK", PLAIN)

    def chunks() -> Iterator[bytes]:
        yield b"first"
        raise RuntimeError("failed late on purpose")

    return Closing(chunks(), "fail_late")


def fail_in_close(request: Request) -> Iterable[bytes]:
    class Failing(Closing):
        def close(self) -> None:
            super().close()
            raise RuntimeError("close failed on purpose")

    request.start("200 OK", [*PLAIN, ("Content-Length", "2")])
    return Failing([b"ok"], "fail_in_close")


def raise_exit(request: Request) -> Iterable[bytes]:
    raise SystemExit("left on purpose")


def give_text(request: Request) -> Iterable[bytes]:
    """An iterable of the wrong thing; with `late` only from the second item on."""
    request.start("200 OK", PLAIN)
    first: list[object] = [b"bytes"] if "late" in request.query else []
    return [*first, "text"]  # type: ignore[list-item]


def give_nothing(request: Request) -> Iterable[bytes]:
    request.start("200 OK", PLAIN)
    return None  # type: ignore[return-value]


def send_file(request: Request) -> Iterable[bytes]:
    """The file `name` from `start` on; `length` is its Content-Length if given."""
    file = (Path(os.environ["PROBE_DIR"]) / request.query["name"]).open("rb")
    file.seek(int(request.query.get("start", "0")))
    length = [("Content-Length", request.query["length"])] if "length" in request.query else []
    request.start("200 OK", [*PLAIN, *length])
    wrapped: Iterable[bytes] = request.environ["wsgi.file_wrapper"](file, 8192)
    return wrapped


def send_file_like(request: Request) -> Iterable[bytes]:
    """What has read() and close(), but no descriptor."""

    class Noticed(io.BytesIO):
        def close(self) -> None:
            recorded("file_like", "closed")
            super().close()

    request.start("200 OK", PLAIN)
    wrapped: Iterable[bytes] = request.environ["wsgi.file_wrapper"](Noticed(b"x" * 100_000), 8192)
    return wrapped


def say(request: Request) -> Iterable[bytes]:
    """Puts `text` on wsgi.errors."""
    errors = request.environ["wsgi.errors"]
    errors.write(request.query["text"] + "\n")
    errors.writelines([request.query["text"], " in lines\n"])
    errors.flush()
    request.start("200 OK", PLAIN)
    return [request.environ["poolsrv.request_id"].encode()]


def record(request: Request) -> Iterable[bytes]:
    """Leaves `line` in the file `name`."""
    recorded(request.query["name"], request.query["line"])
    request.start("200 OK", PLAIN)
    return [b"recorded"]


def hold(request: Request) -> Iterable[bytes]:
    """Answers once the gate `gate` lets it."""
    wait_at_gate(request.query["gate"])
    return show_process(request)


def hold_inside(request: Request) -> Iterable[bytes]:
    """Sends three chunks at once, then waits at the gate, then sends another."""
    request.start("200 OK", PLAIN)

    def chunks() -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        yield b"before"
        wait_at_gate(request.query["gate"])
        yield b"after"

    return Closing(chunks(), "hold_inside")


def die(request: Request) -> Iterable[bytes]:
    """Ends the worker: by `signal`, or with the exit status `status`."""
    if "signal" in request.query:
        os.kill(os.getpid(), signal.Signals[request.query["signal"]])
    os._exit(int(request.query.get("status", "1")))


def orphan(request: Request) -> Iterable[bytes]:
    """Leaves `count` processes whose parent has ended; they end soon."""
    for _ in range(int(request.query["count"])):
        subprocess.run(["sh", "-c", "sleep 0.05 &"], check=True)
    return show_process(request)


def close_all(request: Request) -> Iterable[bytes]:
    """Closes every descriptor but the standard ones, as daemons do."""
    os.closerange(3, 4096)
    request.start("200 OK", PLAIN)
    return [b"closed"]


def cover(request: Request) -> Iterable[bytes]:
    """Puts `thing` (a file, an eventfd) where descriptors of a `kind` are: a word of what
    /proc says they are. Not where clients are."""
    is_file = request.query["thing"] == "file"
    thing = os.open("/dev/null", os.O_RDWR) if is_file else os.eventfd(0)
    covered = 0
    for path in Path("/proc/self/fd").iterdir():
        fd = int(path.name)
        if fd > 2 and fd != thing and request.query["kind"] in _what_is(fd):
            os.dup2(thing, fd)
            covered += 1
    request.start("200 OK", PLAIN)
    return [str(covered).encode()]


def _what_is(fd: int) -> str:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return ""
    with socket.socket(fileno=os.dup(fd)) as end:
        return "socket" if end.family == socket.AF_UNIX else "client"


def give_list(request: Request) -> Iterable[bytes]:
    """`count` pieces of `size` bytes in a list."""
    request.start("200 OK", PLAIN)
    return [bytes(int(request.query["size"])) for _ in range(int(request.query["count"]))]


ROUTES = {
    f"/{route.__name__.replace('_', '-')}": route
    for route in (
        show_process,
        ignore_input,
        echo,
        call_input,
        answer,
        stream,
        declare,
        write,
        start_twice,
        start_again,
        start_too_late,
        never_start,
        start_late,
        fail,
        fail_late,
        fail_in_close,
        raise_exit,
        give_text,
        give_nothing,
        send_file,
        send_file_like,
        say,
        record,
        hold,
        hold_inside,
        die,
        orphan,
        close_all,
        cover,
        give_list,
    )
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The path names the function; any other path shows the environ."""
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True, encoding="latin-1"))
    route = ROUTES.get(environ["PATH_INFO"], show_environ)
    return route(Request(environ, start_response, query))


# Raises AssertionError where server or application break PEP 3333.
validated: WSGIApplication = validator(app)
