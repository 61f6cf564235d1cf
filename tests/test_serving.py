"""HTTP/1.1 and WSGI as a client sees them on a raw socket."""

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.apps.gate import Gate
from tests.client import Client, Response, Truncated, head
from tests.server import Server, serving

PROBE = "tests.apps.probe:app"


@pytest.fixture(scope="module", params=[True, False], ids=["buffered", "streamed"])
def probe(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Shared, so that what a request leaves behind would show in the next test."""
    directory = tmp_path_factory.mktemp("probe")
    options = {"processes": 2, "threads": 4, "request_buffering": request.param}
    with serving(PROBE, directory, **options) as made:
        yield made


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For applications that break on purpose: ERROR lines are asked for."""
    with serving(
        PROBE, tmp_path_factory.mktemp("failing"), processes=1, threads=2, allow_errors="."
    ) as made:
        yield made


@pytest.fixture
def client(probe: Server) -> Iterator[Client]:
    with Client(probe.address) as made:
        yield made


def directory(server: Server) -> Path:
    """PROBE_DIR of that server."""
    return server.log_path.parent


def closings(server: Server, name: str) -> int:
    """How often close() of the iterable `name` was called."""
    file = directory(server) / name
    return len(file.read_text().splitlines()) if file.exists() else 0


def environ(client: Client, target: str, *fields: str, version: str = "1.1") -> dict[str, Any]:
    response = client.get(target, *fields, version=version)
    assert response.status == 200
    shown: dict[str, Any] = json.loads(response.body)
    return shown


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def post(target: str, body: bytes, *fields: str) -> bytes:
    return head("POST", target, f"Content-Length: {len(body)}", *fields) + body


# Connections


def test_keep_alive(client: Client) -> None:
    for number in range(5):
        assert environ(client, f"/{number}")["PATH_INFO"] == f"/{number}"


def test_a_connection_survives_answers_of_every_framing(client: Client) -> None:
    for target, body in [
        ("/declare?length=3&body=a,bc", b"abc"),
        ("/stream?count=3&size=2", b"xxxxxx"),
        ("/answer?status=204%20No%20Content", b""),
        ("/answer?status=304%20Not%20Modified", b""),
        ("/answer?body=", b""),
        ("/stream?count=0", b""),
    ]:
        assert client.get(target).body == body


def test_connection_close(client: Client) -> None:
    response = client.get("/x", "Connection: close")
    assert response.get("Connection") == "close"
    client.expect_end()


def test_http_1_0_closes(client: Client) -> None:
    response = client.get("/x", version="1.0")
    assert response.get("Connection") == "close"
    client.expect_end()


def test_http_1_0_keep_alive(client: Client) -> None:
    for _ in range(3):
        response = client.get("/declare?length=3&body=abc", "Connection: keep-alive", version="1.0")
        assert response.body == b"abc"
        assert response.get("Connection") == "keep-alive"


def test_http_1_0_gets_no_chunks(client: Client) -> None:
    """Without a length, only the end of the connection ends the body."""
    response = client.get("/stream?count=3", "Connection: keep-alive", version="1.0")
    assert response.get("Transfer-Encoding") is None
    assert response.body == b"x" * 30


def test_pipelining_in_one_write(client: Client) -> None:
    client.send(b"".join(head("GET", f"/{number}") for number in range(20)))
    for number in range(20):
        assert json.loads(client.receive().body)["PATH_INFO"] == f"/{number}"


def test_pipelining_with_bodies(client: Client) -> None:
    client.send(b"".join(post("/echo", b"body %d" % number) for number in range(20)))
    for number in range(20):
        assert client.receive().body == b"body %d" % number


@pytest.mark.parametrize("size", [1, 7, 43, 101])
def test_pipelining_split_anywhere(client: Client, size: int) -> None:
    whole = head("GET", "/first") + post("/echo", b"abc") + head("GET", "/last")
    for at in range(0, len(whole), size):
        client.send(whole[at : at + size])
    assert json.loads(client.receive().body)["PATH_INFO"] == "/first"
    assert client.receive().body == b"abc"
    assert json.loads(client.receive().body)["PATH_INFO"] == "/last"


def test_pipelining_keeps_the_order_when_the_first_is_slow(probe: Server, client: Client) -> None:
    with closing(Gate(directory(probe), "pipelined")) as gate:
        client.send(head("GET", "/hold?gate=pipelined") + head("GET", "/second"))
        probe.wait_until(gate.arrivals)
        gate.release(1)
        assert client.receive().body.split()[0].isdigit()
        assert json.loads(client.receive().body)["PATH_INFO"] == "/second"


def test_an_unread_body_is_not_the_next_request(client: Client) -> None:
    client.send(post("/ignore-input", head("GET", "/smuggled")) + head("GET", "/next"))
    assert client.receive().body == b"not read"
    assert json.loads(client.receive().body)["PATH_INFO"] == "/next"


def test_a_client_that_sends_and_shuts_down_its_side(client: Client) -> None:
    client.send(post("/echo", b"abc"))
    client.socket.shutdown(socket.SHUT_WR)
    assert client.receive().body == b"abc"
    client.expect_end()


# Request bodies


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 3_000_000])
def test_a_body_of_known_length(client: Client, size: int) -> None:
    data = os.urandom(size)
    client.send(post("/echo", data))
    assert client.receive().body == data


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"a", b"bc", b"def" * 30_000], [b"x"] * 5000])
def test_a_chunked_body(client: Client, pieces: list[bytes]) -> None:
    client.send(head("POST", "/echo", "Transfer-Encoding: chunked") + chunked(*pieces))
    assert client.receive().body == b"".join(pieces)
    assert client.get("/next").status == 200


def test_a_chunked_body_with_extensions_and_trailers(client: Client) -> None:
    client.send(head("POST", "/echo", "Transfer-Encoding: chunked"))
    client.send(b"3;name=value\r\nabc\r\n0;last\r\nX-Trailer: 1\r\n\r\n" + head("GET", "/next"))
    assert client.receive().body == b"abc"
    assert "HTTP_X_TRAILER" not in json.loads(client.receive().body)


def test_a_chunked_body_byte_by_byte(client: Client) -> None:
    whole = head("POST", "/echo", "Transfer-Encoding: chunked") + chunked(b"abc", b"de")
    for at in range(len(whole)):
        client.send(whole[at : at + 1])
    assert client.receive().body == b"abcde"


def test_the_input_is_known_to_end(client: Client) -> None:
    for fields, body in [
        (["Content-Length: 3"], b"abc"),
        (["Transfer-Encoding: chunked"], chunked(b"abc")),
        ([], b""),
    ]:
        client.send(head("POST", "/x", *fields) + body)
        assert json.loads(client.receive().body)["wsgi.input_terminated"] is True


TEXT = b"one\ntwo\n\nfour without an end"


@pytest.mark.parametrize(
    ("calls", "results"),
    [
        ([["read"], ["read"]], [TEXT, b""]),
        ([["read", -1], ["read", 5]], [TEXT, b""]),
        ([["read", 5], ["read", 0], ["read", 1000]], [b"one\nt", b"", TEXT[5:]]),
        ([["readline"]] * 5, [b"one\n", b"two\n", b"\n", b"four without an end", b""]),
        ([["readline", 2], ["readline", 10], ["readline", 0]], [b"on", b"e\n", b""]),
        ([["readlines"], ["readlines"]], [TEXT.splitlines(keepends=True), []]),
        ([["readlines", 5]], [[b"one\n", b"two\n"]]),
        ([["list"], ["list"]], [TEXT.splitlines(keepends=True), []]),
        ([["next"], ["read", 2], ["readline"], ["list"]],
         [b"one\n", b"tw", b"o\n", [b"\n", b"four without an end"]]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_input_methods(
    client: Client, calls: list[list[object]], results: list[object], framing: str
) -> None:
    target = f"/call-input?calls={quote(json.dumps(calls))}"
    if framing == "length":
        client.send(post(target, TEXT))
    else:
        client.send(head("POST", target, "Transfer-Encoding: chunked"))
        client.send(chunked(TEXT[:6], TEXT[6:7], TEXT[7:]))
    expected = [
        [line.decode() for line in result] if isinstance(result, list) else result.decode()
        for result in results
        if isinstance(result, bytes | list)
    ]
    assert json.loads(client.receive().body) == expected


def test_expect_100_continue(client: Client) -> None:
    client.send(head("POST", "/echo", "Content-Length: 3", "Expect: 100-continue"))
    assert client.receive().status == 100
    client.send(b"abc")
    assert client.receive().body == b"abc"


def test_expect_is_ignored_in_http_1_0(client: Client) -> None:
    fields = ["Content-Length: 3", "Expect: 100-continue"]
    client.send(head("POST", "/echo", *fields, version="1.0") + b"abc")
    assert client.receive().body == b"abc"


def test_no_100_if_the_body_is_already_there(client: Client) -> None:
    client.send(post("/echo", b"abc", "Expect: 100-continue"))
    response = client.receive()
    if response.status == 100:  # allowed, though nobody waits for it
        response = client.receive()
    assert response.body == b"abc"


def test_a_body_over_the_limit_is_refused_unread(server: Callable[..., Server]) -> None:
    small = server(PROBE, limit_request_body="1KiB")
    for fields in (["Content-Length: 1025"], ["Content-Length: 1025", "Expect: 100-continue"]):
        with Client(small.address) as client:
            client.send(head("POST", "/echo", *fields))
            response = client.receive()
            assert (response.status, response.get("Connection")) == (413, "close")
            client.expect_end()
    with Client(small.address) as client:
        client.send(head("POST", "/echo", "Transfer-Encoding: chunked"))
        client.send(b"401\r\n" + b"x" * 1025)
        assert client.receive().status == 413
    with Client(small.address) as client:
        client.send(post("/echo", b"x" * 1024))
        assert client.receive().status == 200


def test_a_bad_request_ends_the_connection_and_what_is_behind_it(client: Client) -> None:
    client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + head("GET", "/behind"))
    response = client.receive()
    assert (response.status, response.get("Connection")) == (400, "close")
    client.expect_end()


# environ


def test_environ_of_a_request(probe: Server, client: Client) -> None:
    shown = environ(
        client, "/a%20b/%C3%A9%2F?x=%20y&z=+", "Content-Type: text/x", "X-One: 1", "X-One: 2"
    )
    _, port = probe.address
    local = client.socket.getsockname()
    assert shown["REQUEST_METHOD"] == "GET"
    assert shown["SCRIPT_NAME"] == ""
    assert shown["PATH_INFO"] == "/a b/é/".encode().decode("latin-1")
    assert shown["QUERY_STRING"] == "x=%20y&z=+"
    assert shown["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert shown["HTTP_HOST"] == "test.example"
    assert shown["CONTENT_TYPE"] == "text/x"
    assert "HTTP_CONTENT_TYPE" not in shown
    assert shown["HTTP_X_ONE"] in ("1,2", "1, 2")
    assert (shown["REMOTE_ADDR"], shown["REMOTE_PORT"]) == (local[0], str(local[1]))
    assert shown["SERVER_NAME"]
    assert shown["SERVER_PORT"] == str(port)
    assert shown["wsgi.version"] == [1, 0]
    assert shown["wsgi.url_scheme"] == "http"
    assert shown["wsgi.run_once"] is False
    assert shown["poolsrv.request_id"]


def test_environ_of_an_old_request(client: Client) -> None:
    shown = environ(client, "/x", version="1.0")
    assert shown["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_environ_of_a_body(client: Client) -> None:
    client.send(post("/x", b"abc"))
    shown = json.loads(client.receive().body)
    assert (shown["REQUEST_METHOD"], shown["CONTENT_LENGTH"]) == ("POST", "3")
    assert "HTTP_CONTENT_LENGTH" not in shown


def test_several_cookie_fields_are_one(client: Client) -> None:
    """RFC 9110 section 5.3 would join by a comma; cookies need a semicolon (RFC 6265)."""
    assert environ(client, "/x", "Cookie: a=1", "Cookie: b=2")["HTTP_COOKIE"] == "a=1; b=2"


def test_names_with_an_underscore_are_dropped(client: Client) -> None:
    shown = environ(client, "/x", "X_Forwarded_For: evil", "X-Forwarded-Fox: good")
    assert "HTTP_X_FORWARDED_FOR" not in shown
    assert shown["HTTP_X_FORWARDED_FOX"] == "good"


def test_the_absolute_form(client: Client) -> None:
    shown = environ(client, "http://test.example/path?q")
    assert (shown["PATH_INFO"], shown["QUERY_STRING"]) == ("/path", "q")


def test_each_request_has_an_id_of_its_own(client: Client) -> None:
    ids = [environ(client, "/x")["poolsrv.request_id"] for _ in range(20)]
    assert len(set(ids)) == 20


@pytest.mark.parametrize(("processes", "threads"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_the_application_is_told_what_runs_it(
    server: Callable[..., Server], processes: int, threads: int
) -> None:
    with Client(server(PROBE, processes=processes, threads=threads).address) as client:
        shown = environ(client, "/x")
    # A worker that is replaced serves on beside the next one.
    assert (shown["wsgi.multiprocess"], shown["wsgi.multithread"]) == (True, threads > 1)
    assert shown["wsgi.run_once"] is False


# Responses


def test_head_has_the_fields_of_get_and_no_body(client: Client) -> None:
    for target in ("/declare?length=3&body=abc", "/stream?count=3", "/x"):
        client.send(head("HEAD", target))
        response = client.receive(to_head=True)
        assert (response.status, response.body) == (200, b"")
    assert client.get("/declare?length=3&body=abc").body == b"abc"


def test_head_keeps_the_length(client: Client) -> None:
    client.send(head("HEAD", "/declare?length=3&body=abc"))
    assert client.receive(to_head=True).get("Content-Length") == "3"


def test_every_answer_has_a_date_and_a_server(client: Client) -> None:
    response = client.get("/x")
    assert (response.get("Date") or "").endswith(" GMT")
    assert (response.get("Server") or "").startswith("poolsrv")


def test_one_chunk_gets_a_length(client: Client) -> None:
    response = client.get("/answer?body=abc")
    assert (response.get("Content-Length"), response.body) == ("3", b"abc")


def test_many_chunks_are_sent_before_the_next_is_made(probe: Server, client: Client) -> None:
    with closing(Gate(directory(probe), "chunks")) as gate:
        client.send(head("GET", "/hold-inside?gate=chunks"))
        probe.wait_until(gate.arrivals)
        while b"before" not in client.received:
            client.received += client.socket.recv(4096)
        gate.release(1)
        assert client.receive().chunks == [b"one", b"two", b"before", b"after"]


def test_a_large_stream(client: Client) -> None:
    assert len(client.get("/stream?count=500&size=10000").body) == 5_000_000


@pytest.mark.parametrize("size", [1, 16_383, 16_384, 16_385, 100_000])
def test_each_piece_is_a_chunk(client: Client, size: int) -> None:
    """Copied, or sent from where it lies: the frame is the same."""
    for _ in range(2):
        assert [len(c) for c in client.get(f"/stream?count=9&size={size}").chunks] == [size] * 9


def test_write(client: Client) -> None:
    assert client.get("/write").body == b"written twice, then returned"


def test_start_response_again_with_exc_info(client: Client) -> None:
    response = client.get("/start-again")
    assert (response.status, response.reason, response.body) == (409, "Conflict", b"replaced")
    assert (response.get("X-First"), response.get("X-Second")) == (None, "2")


def test_start_response_on_the_way_to_the_first_chunk(client: Client) -> None:
    assert client.get("/start-late").body == b"late"


def test_close_is_called_once(probe: Server, client: Client) -> None:
    before = closings(probe, "stream")
    client.get("/stream?count=3")
    client.send(head("HEAD", "/stream?count=3"))
    client.receive(to_head=True)
    probe.wait_until(lambda: closings(probe, "stream") == before + 2)


def test_close_is_called_when_the_client_is_gone(probe: Server) -> None:
    before, inside = closings(probe, "stream"), closings(probe, "hold_inside")
    client = Client(probe.address)
    client.send(head("GET", "/stream?count=100000&size=10000"))
    client.reset()
    with closing(Gate(directory(probe), "gone")) as gate:
        client = Client(probe.address)
        client.send(head("GET", "/hold-inside?gate=gone"))
        probe.wait_until(gate.arrivals)
        client.reset()
        gate.release(1)
        probe.wait_until(lambda: closings(probe, "hold_inside") == inside + 1)
    probe.wait_until(lambda: closings(probe, "stream") == before + 1)


@pytest.fixture(scope="module")
def file(probe: Server) -> bytes:
    """The content of `file.bin` in the directory of the server."""
    content = os.urandom(2_000_000)
    (directory(probe) / "file.bin").write_bytes(content)
    return content


def test_file_wrapper(client: Client, file: bytes) -> None:
    assert client.get("/send-file?name=file.bin").body == file
    assert client.get("/next").status == 200


def test_file_wrapper_from_the_position_of_the_file(client: Client, file: bytes) -> None:
    target = "/send-file?name=file.bin&start=1000000&length=500000"
    assert client.get(target).body == file[1_000_000:1_500_000]
    assert client.get("/send-file?name=file.bin&start=1999999").body == file[-1:]
    assert client.get("/send-file?name=file.bin&start=2000000").body == b""


def test_file_wrapper_of_what_is_no_file(probe: Server, client: Client) -> None:
    before = closings(probe, "file_like")
    assert client.get("/send-file-like").body == b"x" * 100_000
    probe.wait_until(lambda: closings(probe, "file_like") == before + 1)


def test_errors_reach_the_log_with_the_request(server: Callable[..., Server]) -> None:
    probe = server(PROBE, allow_errors="to the log")
    with Client(probe.address) as client:
        request_id = client.get("/say?text=to%20the%20log%1b").body.decode()
    probe.wait_until(lambda: probe.log().count("to the log") == 2)
    lines = [line for line in probe.log().splitlines() if "to the log" in line]
    assert all(request_id in line for line in lines)
    assert "\x1b" not in probe.log()


def test_pep_3333_as_the_standard_library_checks_it(server: Callable[..., Server]) -> None:
    checked = server("tests.apps.probe:validated")
    with Client(checked.address) as client:
        for target in ("/x?y", "/stream?count=3", "/write", "/start-again"):
            assert client.get(target).status in (200, 409)
        client.send(post("/call-input?calls=" + quote('[["read",3],["readline"]]'), b"abcdef"))
        assert json.loads(client.receive().body) == ["abc", "def"]


# Applications that break


def test_an_exception_is_a_500_and_a_traceback(failing: Server) -> None:
    mark = len(failing.log())
    with Client(failing.address) as client:
        response = client.get("/fail")
        assert response.status == 500
        assert b"on purpose" not in response.body
    failing.wait_for_log("RuntimeError: failed on purpose", since=mark)
    logged = failing.log_since(mark)
    assert "Traceback" in logged
    assert "probe.py" in logged
    assert re.search(r" request=\S+ method=GET path=/fail$", logged, re.MULTILINE)
    with Client(failing.address) as client:
        assert client.get("/x").status == 200


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/start-twice", "start_response"),
        ("/never-start", "start_response"),
        ("/give-text", "bytes"),
        ("/give-nothing", "iter"),
        ("/raise-exit", "SystemExit"),
        ("/answer?name=X-Bad&value=a%0d%0aSet-Cookie:%20evil=1", ""),
        ("/answer?name=X-Bad&value=a%0ab", ""),
        ("/answer?name=X-Bad&value=a%00b", ""),
        ("/answer?name=X-Bad%0d%0aX-Evil&value=b", ""),
        ("/answer?name=X%20Bad&value=b", ""),
        ("/answer?status=200%20OK%0d%0aX-Evil:%201", ""),
        ("/answer?status=OK", ""),
        ("/answer?status=99%20Low", ""),
        ("/answer?name=Content-Length&value=-1", ""),
    ],
)
def test_what_the_application_must_not_do_is_a_500(
    failing: Server, target: str, words: str
) -> None:
    mark = len(failing.log())
    with Client(failing.address) as client:
        response = client.get(target)
        assert response.status == 500
        assert all("evil" not in value.lower() for field in response.fields for value in field)
    failing.wait_for_log(rf" ERROR [\s\S]*{words}", since=mark)
    with Client(failing.address) as client:
        assert client.get("/x").status == 200


@pytest.mark.parametrize("target", ["/fail-late", "/start-too-late", "/give-text?late"])
def test_after_the_first_chunk_the_connection_is_cut(failing: Server, target: str) -> None:
    """No last chunk: the client sees that the answer is not whole."""
    mark = len(failing.log())
    with Client(failing.address) as client:
        client.send(head("GET", target))
        assert cut_off(client).chunks in ([b"first"], [b"bytes"])
    failing.wait_for_log(" ERROR ", since=mark)


def test_an_answer_without_a_length_that_is_cut_does_not_just_end(failing: Server) -> None:
    """Its end is the connection's, so only a reset tells that there was more."""
    with Client(failing.address) as client:
        client.send(head("GET", "/fail-late", version="1.0"))
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: client.socket.recv(4096), b""))
    failing.wait_for_log(" ERROR ")
    with Client(failing.address) as client:
        assert client.get("/stream?count=3", version="1.0").body
        client.expect_end()


def cut_off(client: Client) -> Response:
    with pytest.raises(Truncated) as caught:
        client.receive()
    return caught.value.response


def test_close_is_called_after_an_exception(failing: Server) -> None:
    before = closings(failing, "fail_late")
    with Client(failing.address) as client:
        client.send(head("GET", "/fail-late"))
        cut_off(client)
    failing.wait_until(lambda: closings(failing, "fail_late") == before + 1)


def test_an_exception_in_close_is_logged(failing: Server) -> None:
    mark = len(failing.log())
    with Client(failing.address) as client:
        assert client.get("/fail-in-close").body == b"ok"
    failing.wait_for_log("close failed on purpose", since=mark)


def test_fewer_bytes_than_declared(failing: Server) -> None:
    mark = len(failing.log())
    with Client(failing.address) as client:
        client.send(head("GET", "/declare?length=10&body=ab,cd"))
        assert cut_off(client).body == b"abcd"
    failing.wait_for_log("Content-Length", since=mark)


def test_more_bytes_than_declared(failing: Server) -> None:
    mark = len(failing.log())
    with Client(failing.address) as client:
        assert client.get("/declare?length=3&body=ab,cd,ef").body == b"abc"
    failing.wait_for_log("Content-Length", since=mark)
    assert closings(failing, "declare") > 0
