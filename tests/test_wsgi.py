"""PEP 3333 at its edges: what applications may do, and what clients then see."""

import contextvars
import gzip
import io
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from tests.apps.gate import Gate, wait_at_gate
from tests.client import Client, head
from tests.server import Server, serving

Query = dict[str, str]
Route = Callable[[WSGIEnvironment, StartResponse, Query], Iterable[bytes]]
ROUTES: dict[str, Route] = {}


def route(function: Route) -> Route:
    ROUTES["/" + function.__name__.replace("_", "-")] = function
    return function


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    return ROUTES[environ["PATH_INFO"]](environ, start_response, query)


@pytest.fixture(scope="module", params=[True, False], ids=["buffered", "streamed"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Shared, so that what a request leaves behind would show in the next test."""
    directory = tmp_path_factory.mktemp("wsgi")
    options = {"processes": 1, "threads": 4, "request_buffering": request.param}
    with serving("tests.test_wsgi:app", directory, allow_errors="unended", **options) as made:
        yield made


def folder(server: Server) -> Path:
    """PROBE_DIR of that server."""
    return server.log_path.parent


def noted(server: Server, name: str) -> str:
    file = folder(server) / name
    return file.read_text() if file.exists() else ""


def note(name: str, text: str) -> None:
    with (Path(os.environ["PROBE_DIR"]) / name).open("a") as file:
        file.write(text + "\n")


PLAIN = [("Content-Type", "text/plain")]


@pytest.fixture
def client(site: Server) -> Iterator[Client]:
    with Client(site.address) as made:
        yield made


# HEAD, and what has no body


@route
def bodies(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """Three pieces of unknown length; as many frameworks do it, none of them for a HEAD."""
    start(query.get("status", "200 OK"), [("Content-Type", "text/plain")])
    if environ["REQUEST_METHOD"] == "HEAD":
        return ()
    return (piece for piece in (b"a", b"b", b"c"))


def test_head_has_no_length_that_get_has_not(client: Client) -> None:
    assert client.get("/bodies").get("Content-Length") is None
    client.send(head("HEAD", "/bodies"))
    assert client.receive(to_head=True).get("Content-Length") is None
    assert client.get("/bodies").body == b"abc"


def test_head_by_http_1_0_keeps_the_connection(client: Client) -> None:
    for _ in range(2):
        client.send(head("HEAD", "/bodies", "Connection: keep-alive", version="1.0"))
        assert client.receive(to_head=True).get("Connection") == "keep-alive"


def test_a_205_has_no_body(client: Client) -> None:
    response = client.get("/bodies?status=205%20Reset%20Content")
    assert (response.status, response.get("Content-Length"), response.body) == (205, "0", b"")
    assert client.get("/bodies").body == b"abc"


# Clients that are gone


@route
def write_for_ever(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    write = start("200 OK", PLAIN)
    try:
        while True:
            write(b"x" * int(query["size"]))
    except BrokenPipeError:
        note(query["note"], "told")
        raise


@route
def yield_nothing(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    start("200 OK", PLAIN)

    def pieces() -> Iterator[bytes]:
        wait_at_gate(query["gate"])
        try:
            while True:
                yield b""
        finally:
            note(query["gate"], "told")

    return pieces()


@pytest.mark.parametrize("size", [10, 100_000])
def test_write_raises_when_the_client_is_gone(site: Server, client: Client, size: int) -> None:
    """A BrokenPipeError, as a socket would; it is no error of the application (no ERROR line)."""
    client.send(head("GET", f"/write-for-ever?size={size}&note=gone-{size}"))
    client.socket.recv(100)
    client.reset()
    site.wait_until(lambda: noted(site, f"gone-{size}") == "told\n")


def test_write_raises_when_send_timeout_has_cut_it(tmp_path: Path) -> None:
    options = {"processes": 1, "threads": 1, "send_timeout": "0.2s", "response_buffer": "1KiB"}
    with (
        serving("tests.test_wsgi:app", tmp_path, **options) as server,
        Client(server.address) as client,
    ):
        client.send(head("GET", "/write-for-ever?size=100000&note=cut"))
        server.wait_until(lambda: noted(server, "cut") == "told\n")


def test_a_generator_of_nothing_ends_when_the_client_is_gone(site: Server, client: Client) -> None:
    with closing(Gate(folder(site), "nothing")) as gate:
        client.send(head("GET", "/yield-nothing?gate=nothing"))
        site.wait_until(gate.arrivals)
        client.reset()
        gate.release(1)
        site.wait_until(lambda: noted(site, "nothing") == "told\n")


@route
def yield_nothing_until(
    environ: WSGIEnvironment, start: StartResponse, query: Query
) -> Iterable[bytes]:
    """Until somebody has left a note of that name."""
    start("200 OK", PLAIN)
    try:
        while not (Path(os.environ["PROBE_DIR"]) / query["note"]).exists():
            yield b""
            time.sleep(0.01)
        yield b"end"
    except GeneratorExit:
        note("left", environ["QUERY_STRING"])
        raise


def test_a_generator_of_nothing_ends_when_the_client_has_closed(
    site: Server, client: Client
) -> None:
    """It looks like one that only sends no more, and that one must have its answer."""
    with Client(site.address) as closed:
        for each, name in ((client, "half"), (closed, "closed")):
            each.send(head("GET", f"/yield-nothing-until?note=until-{name}"))
        client.socket.shutdown(socket.SHUT_WR)
        # Its kernel forgets the connection after a second instead of a minute.
        closed.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
    site.wait_until(lambda: noted(site, "left") == "note=until-closed\n")
    (folder(site) / "until-half").touch()
    assert client.receive().body == b"end"


@route
def seen(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """Leaves its name, then waits at the gate, if it is told one."""
    note("seen", query["name"])
    if "gate" in query:
        wait_at_gate(query["gate"])
    start("200 OK", PLAIN)
    return [b"seen"]


def test_a_client_that_left_the_queue_is_not_served(tmp_path: Path) -> None:
    """One that was reset, not one that only sends no more."""
    with (
        serving("tests.test_wsgi:app", tmp_path, processes=1, threads=1) as server,
        closing(Gate(folder(server))) as gate,
        Client(server.address) as first,
        Client(server.address) as closed,
        Client(server.address) as half,
    ):
        first.send(head("GET", "/seen?name=first&gate=gate"))
        server.wait_until(gate.arrivals)
        began = time.monotonic()
        closed.send(head("GET", "/seen?name=closed"))
        half.send(head("GET", "/seen?name=half"))
        server.wait_for_metric(2, "poolsrv_queue_length")
        closed.reset()
        half.socket.shutdown(socket.SHUT_WR)
        server.wait_until(lambda: time.monotonic() > began + 0.1)
        gate.release(1)
        assert first.receive().body == b"seen"
        assert half.receive().body == b"seen"
        assert noted(server, "seen").split() == ["first", "half"]


# The end of an answer


@route
def close_late(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    class Late:
        def __iter__(self) -> Iterator[bytes]:
            yield from [b"x" * int(query["size"])] * int(query["count"])

        def close(self) -> None:
            wait_at_gate(query["gate"])

    start("200 OK", PLAIN)
    return Late()


@pytest.mark.parametrize(("size", "count"), [(3, 0), (3, 1), (3, 5), (30_000, 1)])
def test_the_client_need_not_wait_for_close(
    site: Server, client: Client, size: int, count: int
) -> None:
    name = f"late-{size}-{count}"
    with closing(Gate(folder(site), name)) as gate:
        response = client.get(f"/close-late?gate={name}&size={size}&count={count}")
        assert len(response.body) == size * count
        site.wait_until(gate.arrivals)
        gate.release(1)
    assert client.get("/bodies").body == b"abc"


@pytest.mark.parametrize(("size", "count"), [(3, 1), (3, 5), (30_000, 1)])
def test_nor_where_only_the_end_of_the_connection_tells(
    site: Server, size: int, count: int
) -> None:
    name = f"late-end-{size}-{count}"
    with closing(Gate(folder(site), name)) as gate, Client(site.address) as client:
        path = f"/close-late?gate={name}&size={size}&count={count}"
        client.send(head("GET", path, version="1.0"))
        received = b""
        while data := client.socket.recv(65536):
            received += data
        assert received.partition(b"\r\n\r\n")[2] == b"x" * size * count
        site.wait_until(gate.arrivals)
        gate.release(1)


# wsgi.file_wrapper


class Counting(io.FileIO):
    """A file whose read() says something else than its descriptor."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size).upper()


def open_by(kind: str, path: Path) -> Any:
    match kind:
        case "plain":
            return path.open("rb")
        case "unbuffered":
            return path.open("rb", buffering=0)
        case "appending":
            appended = path.open("a+b")
            appended.seek(0)
            return appended
        case "in the middle":
            file = path.open("rb")
            file.read(5)
            return file
        case "at the end":
            file = path.open("rb")
            file.seek(0, os.SEEK_END)
            return file
        case "gzip":
            packed = path.with_suffix(".gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            return gzip.open(packed)
        case "heir":
            return Counting(path)
        case "overridden":
            own: Any = path.open("rb")
            texts = iter([b"own", b""])
            own.read = lambda _size=-1: next(texts)
            return own
        case "temporary":
            named = tempfile.NamedTemporaryFile()  # noqa: SIM115
            named.write(path.read_bytes())
            named.seek(2)
            return named
        case "unflushed":
            written = path.with_suffix(".new").open("w+b")
            written.write(b"in Python's buffer")
            written.seek(3)
            return written
        case "proc":
            return Path("/proc/self/limits").open("rb")
        case "sys":
            return Path("/sys/kernel/mm/transparent_hugepage/enabled").open("rb")
        case "pipe":
            reader, writer = os.pipe()
            os.write(writer, b"of a pipe")
            os.close(writer)
            return os.fdopen(reader, "rb")
        case "socket":
            ours, theirs = socket.socketpair()
            theirs.sendall(b"of a socket")
            theirs.close()
            return ours.makefile("rb")
        case "memory":
            return io.BytesIO(path.read_bytes())
    raise AssertionError(kind)


KINDS = ["plain", "unbuffered", "appending", "in the middle", "at the end", "gzip", "heir"]
KINDS += ["overridden", "temporary", "unflushed", "proc", "sys", "pipe", "socket", "memory"]


@route
def file(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """By the wrapper, or what read() gives."""
    path = Path(os.environ["PROBE_DIR"]) / f"{query['kind']}.txt"
    path.write_bytes(b"the bytes of a file " * 5000)
    opened = open_by(query["kind"], path)
    start("200 OK", PLAIN)
    if "wrapped" in query:
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened, 4096)
        return wrapped
    with opened:
        return [b"".join(iter(lambda: opened.read(4096), b""))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_wrapper_gives_what_read_gives(client: Client, kind: str) -> None:
    target = f"/file?kind={kind.replace(' ', '%20')}"
    read = client.get(target).body
    assert client.get(f"{target}&wrapped=").body == read
    assert bool(read) != (kind == "at the end")


@route
def wrapper(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """A range, as frameworks make it of a wrapper that can seek."""
    wrapped = environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"), 4)
    assert wrapped.seekable()
    wrapped.seek(4)
    assert wrapped.tell() == 4
    start("206 Partial Content", PLAIN)
    return [b"".join(wrapped)]


def test_the_file_wrapper_can_seek(client: Client) -> None:
    assert client.get("/wrapper").body == b"456789"


# wsgi.input and wsgi.errors


READERS: dict[str, Callable[[Any], bytes]] = {
    "read": lambda body: body.read(),
    "read in parts": lambda body: b"".join(iter(lambda: body.read(1000), b"")),
    "read1": lambda body: b"".join(iter(lambda: body.read1(1000), b"")),
    "iter": b"".join,
    "readline": lambda body: b"".join(iter(body.readline, b"")),
    "readlines": lambda body: b"".join(body.readlines()),
    "buffered": lambda body: io.BufferedReader(body).read(),
    "text": lambda body: io.TextIOWrapper(body, "latin-1", newline="").read().encode("latin-1"),
}
BODY = b"".join(b"%d\r\n" % number for number in range(30_000))


@route
def count(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    data = READERS[query["by"]](environ["wsgi.input"])
    start("200 OK", PLAIN)
    return [b"%d %d" % (len(data), data == BODY)]


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "sized"])
@pytest.mark.parametrize("by", READERS)
def test_a_body_is_whole_however_it_is_read(client: Client, by: str, chunked: bool) -> None:
    target = f"/count?by={by.replace(' ', '%20')}"
    if chunked:
        client.send(head("POST", target, "Transfer-Encoding: chunked"))
        for at in range(0, len(BODY), 1111):
            piece = BODY[at : at + 1111]
            client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        client.send(b"0\r\n\r\n")
    else:
        client.send(head("POST", target, f"Content-Length: {len(BODY)}") + BODY)
    assert client.receive().body == b"%d 1" % len(BODY)
    assert client.get("/bodies").body == b"abc"


@route
def say(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    assert not environ["wsgi.errors"].isatty()
    environ["wsgi.errors"].write(query["text"])
    start("200 OK", PLAIN)
    return [environ["poolsrv.request_id"].encode()]


def test_a_line_without_its_end_is_that_request_s_own(site: Server, client: Client) -> None:
    text = f"unended {id(client)}"
    request = client.get(f"/say?text={text.replace(' ', '%20')}").body.decode()
    site.wait_until(lambda: text in site.log_path.read_text())
    (line,) = (line for line in site.log_path.read_text().splitlines() if text in line)
    assert request in line


# What one request leaves to the next


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@route
def variables(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            yield VARIABLE.get().encode()

        def close(self) -> None:
            note("variables", VARIABLE.get())

    start("200 OK", [*PLAIN, ("X-Before", VARIABLE.get())])
    VARIABLE.set(query["value"])
    return Pieces()


def test_each_request_has_contextvars_of_its_own(site: Server, client: Client) -> None:
    (folder(site) / "variables").unlink(missing_ok=True)
    values = [f"value-{number}" for number in range(20)]
    for value in values:
        response = client.get(f"/variables?value={value}")
        assert (response.get("X-Before"), response.body) == ("unset", value.encode())
    site.wait_until(lambda: noted(site, "variables").split() == values)


def test_a_proxy_field_is_no_environment_variable(client: Client) -> None:
    response = client.get("/keys", "Proxy: http://evil.example", "proxy: 2", "Proxy-X: 3")
    keys = json.loads(response.body)
    assert "HTTP_PROXY" not in keys
    assert "HTTP_PROXY_X" in keys


@route
def keys(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    return [json.dumps(sorted(environ)).encode()]


# Threads of the application's own


@route
def outlive(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """A thread that reads the body, or writes, and does not end with its request."""
    body = environ["wsgi.input"]
    write = start("200 OK", [*PLAIN, ("Content-Length", "4")])

    def read_on() -> None:
        while True:
            body.read(1)

    def write_on() -> None:
        while True:
            write(b"")

    def use() -> None:
        try:
            (read_on if query["by"] == "read" else write_on)()
        except (ValueError, RuntimeError, OSError) as error:
            note(query["note"], type(error).__name__)

    for _ in range(2):
        threading.Thread(target=use, daemon=True).start()
    return [b"done"]


@pytest.mark.parametrize("by", ["read", "write"])
def test_a_thread_that_outlives_its_request_is_shut_out(
    site: Server, client: Client, by: str
) -> None:
    (folder(site) / f"outlive-{by}").unlink(missing_ok=True)
    rounds = 50
    for number in range(rounds):
        body = b"%d" % number * 5000
        client.send(head("POST", f"/outlive?by={by}&note=outlive-{by}"))
        assert client.receive().body == b"done"
        client.send(head("POST", f"/length?{number}", f"Content-Length: {len(body)}") + body)
        assert client.receive().body == b"%d" % len(body)
    site.wait_until(lambda: len(noted(site, f"outlive-{by}").split()) == 2 * rounds)


@route
def length(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    return [b"%d" % len(environ["wsgi.input"].read())]


@route
def leave_a_reader(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """A thread that waits for a body which does not come."""
    threading.Thread(target=environ["wsgi.input"].read, daemon=True).start()
    wait_at_gate(query["gate"])
    start("200 OK", PLAIN)
    return [b"done"]


def test_a_request_does_not_wait_for_a_thread_that_waits_for_its_body(
    tmp_path: Path,
) -> None:
    options = {"processes": 1, "threads": 1, "request_buffering": False}
    with (
        serving("tests.test_wsgi:app", tmp_path, allow_errors=".", **options) as server,
        closing(Gate(folder(server))) as gate,
        Client(server.address) as client,
        Client(server.address) as other,
    ):
        client.send(head("POST", "/leave-a-reader?gate=gate", "Content-Length: 5"))
        server.wait_until(lambda: any(r["state"] == "reading" for r in server.status()["running"]))
        gate.release(1)
        assert client.receive().body == b"done"
        assert other.get("/bodies").body == b"abc"


@route
def halves(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Iterable[bytes]:
    """Two threads read one body at once."""
    found: list[bytes] = []

    def read() -> None:
        while piece := environ["wsgi.input"].read(777):
            found.append(piece)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    start("200 OK", PLAIN)
    return [b"%d" % sum(map(len, found))]


def test_two_threads_may_read_one_body(client: Client) -> None:
    body = bytes(range(256)) * 8000
    client.send(head("POST", "/halves", f"Content-Length: {len(body)}") + body)
    assert client.receive().body == b"%d" % len(body)
