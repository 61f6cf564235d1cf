"""X-Sendfile: the application names a file, the server sends it."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.client import Client, Response, head
from tests.server import Server, serving

DATA = bytes(range(256)) * 16
LARGE = bytes(range(256)) * 4096  # more than is read into memory


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sendfile")
    root = folder / "files"
    root.mkdir()
    (root / "data.bin").write_bytes(DATA)
    (root / "large.bin").write_bytes(LARGE)
    (root / "page.css").write_text("a {}")
    (root / ".hidden").write_text("its own business")
    (root / "empty").touch()
    (root / "folder").mkdir()
    (folder / "secret").write_text("secret")
    (root / "out").symlink_to(folder / "secret")
    return root


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    options = {"processes": 1, "sendfile_root": root, "allow_errors": "body: "}
    with serving("tests.apps.naming:app", directory, **options) as made:
        yield made


def get(server: Server, how: str, path: object = None, *fields: str, **query: Any) -> Response:
    more = "".join(f"{field}\r\n" for field in fields)
    names = {"path": str(path)} if path else {}
    target = f"/{how}?{urlencode(names | query, doseq=True)}"
    with Client(server.address) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode())
        response = client.receive()
        # The connection is good for another request, whatever the answer was.
        client.send(b"GET /list HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.receive().body == b"the body"
    return response


@pytest.mark.parametrize("how", ["list", "object", "generator", "empty", "wrapper"])
@pytest.mark.parametrize(("name", "data"), [("data.bin", DATA), ("large.bin", LARGE)])
def test_the_file_takes_the_place_of_the_body(
    server: Server, root: Path, how: str, name: str, data: bytes
) -> None:
    mark = len(server.log())
    fields = ["Content-Type:text/x-own", "X-More:1", "content-length:3"]
    response = get(server, how, root / name, field=fields if how != "generator" else [])
    assert (response.status, response.reason) == (200, "OK")
    assert response.body == data
    assert response.get("Content-Length") == str(len(data))
    assert response.get("X-Sendfile") is None
    if how != "generator":
        assert response.get("Content-Type") == "text/x-own"
        assert response.get("X-More") == "1"
    assert response.get("Accept-Ranges") == "bytes"
    assert response.get("Last-Modified")
    if how == "object":
        server.wait_for_log("body: closed", mark)
        assert "body: read" not in server.log_since(mark)


def test_its_type_is_that_of_its_name_if_nobody_says(server: Server, root: Path) -> None:
    assert get(server, "list", root / "page.css").get("Content-Type") == "text/css; charset=utf-8"


def test_hidden_and_empty_files(server: Server, root: Path) -> None:
    assert get(server, "list", root / ".hidden").body == b"its own business"
    assert get(server, "list", root / "empty").body == b""


def test_write_before_the_end_is_the_body(server: Server, root: Path) -> None:
    response = get(server, "write", root / "data.bin")
    assert response.body == b"the body"
    assert response.get("X-Sendfile") is None


def test_conditions_and_ranges_are_judged(server: Server, root: Path) -> None:
    path = root / "data.bin"
    tag = get(server, "list", path).get("ETag")
    assert get(server, "list", path, f"If-None-Match: {tag}").status == 304
    part = get(server, "list", path, "Range: bytes=10-19")
    assert (part.status, part.body) == (206, DATA[10:20])
    assert part.get("Content-Range") == "bytes 10-19/4096"
    late = get(server, "list", path, "Range: bytes=9999-")
    assert (late.status, late.get("Content-Range")) == (416, "bytes */4096")
    assert get(server, "list", path, 'If-Match: "x"').status == 412


def test_not_if_the_application_has_judged(server: Server, root: Path) -> None:
    own = ['ETag:"own"', "Accept-Ranges:bytes"]
    response = get(server, "list", root / "data.bin", "Range: bytes=10-19", field=own)
    assert (response.status, response.body, response.get("ETag")) == (200, DATA, '"own"')
    response = get(
        server,
        "list",
        root / "data.bin",
        status="206 Partial Content",
        field=["Content-Range:bytes 100-199/4096", "Content-Length:100"],
    )
    assert (response.status, response.body) == (206, DATA[100:200])
    response = get(
        server,
        "list",
        root / "page.css",
        status="206 Partial Content",
        field=["Content-Range:bytes 100-199/4096"],
    )
    assert response.body == b"a {}"  # what is there


def test_other_statuses(server: Server, root: Path) -> None:
    response = get(server, "list", root / "page.css", "Range: bytes=0-1", status="404 Not Found")
    assert (response.status, response.body) == (404, b"a {}")
    response = get(server, "list", root / "page.css", status="304 Not Modified")
    assert (response.status, response.body) == (304, b"")
    # The words are the application's: clients show them.
    response = get(server, "list", root / "page.css", status="404 No Such Invoice")
    assert response.reason == "No Such Invoice"
    response = get(server, "list", root / "page.css", status="200 OK", field=['ETag:"own"'])
    assert response.reason == "OK"


def test_head(server: Server, root: Path) -> None:
    target = f"/list?{urlencode({'path': str(root / 'data.bin')})}"
    with Client(server.address) as client:
        client.send(f"HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        response = client.receive(to_head=True)
    assert (response.status, response.get("Content-Length")) == (200, "4096")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none", "cannot find"),
        ("folder", "no regular file"),
        ("folder/", "no name"),
        ("../secret", "no name"),
        ("out", "leads out"),
        ("//data.bin", "no name"),
        ("", "no name"),
    ],
)
def test_what_is_no_file_in_the_folder_is_404(
    server: Server, root: Path, name: str, why: str
) -> None:
    mark = len(server.log())
    response = get(server, "object", f"{root}/{name}")
    assert (response.status, response.body) == (404, b"404 Not Found\n")
    server.wait_for_log(f"X-Sendfile names .*{why}", mark)
    server.wait_for_log("body: closed", mark)


@pytest.mark.parametrize("path", ["/etc/passwd", "data.bin", "files/data.bin", "/"])
def test_nor_is_one_elsewhere(server: Server, path: str) -> None:
    assert get(server, "list", path).status == 404


def test_a_relative_path_is_said_to_be_one(root: Path, tmp_path: Path) -> None:
    options = {"processes": 1, "sendfile_root": root}
    with serving("tests.apps.naming:app", tmp_path, **options) as server:
        assert get(server, "list", "files/data.bin").status == 404
        server.wait_for_log("X-Sendfile names files/data.bin, .*write the whole of it")


def test_one_that_a_prefix_of_the_folder_names(server: Server, root: Path) -> None:
    assert get(server, "list", f"{root}x/data.bin").status == 404


def test_without_the_option_the_field_goes_on(tmp_path: Path) -> None:
    with serving("tests.apps.naming:app", tmp_path, processes=1) as server:
        response = get(server, "list", "/srv/a")
        assert (response.get("X-Sendfile"), response.body) == ("/srv/a", b"the body")


def test_flask_leaves_its_files_to_the_server(root: Path, tmp_path: Path) -> None:
    env = {"ROOT": str(root)}
    options = {"processes": 1, "sendfile_root": root}
    with (
        serving("tests.apps.naming:flask()", tmp_path, env=env, **options) as server,
        Client(server.address) as client,
    ):
        client.send(b"GET /data.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        whole = client.receive()
        assert (whole.status, whole.body) == (200, DATA)
        client.send(b"GET /data.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=5-9\r\n\r\n")
        part = client.receive()
        assert (part.status, part.body) == (206, DATA[5:10])
        tag = whole.get("ETag")
        client.send(f"GET /data.bin HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n".encode())
        assert client.receive().status == 304


def test_a_slow_reader_holds_no_thread(root: Path, tmp_path: Path) -> None:
    huge = root / "huge.bin"
    with huge.open("wb") as file:
        file.truncate(64 << 20)
    options = {"processes": 1, "threads": 1, "sendfile_root": root}
    with (
        serving("tests.apps.naming:app", tmp_path, **options) as server,
        socket.create_connection(server.address) as slow,
    ):
        target = f"/list?{urlencode({'path': str(huge)})}"
        slow.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert slow.recv(4) == b"HTTP"
        assert get(server, "list", root / "page.css").body == b"a {}"


def test_a_worker_that_is_killed_while_it_sends_cuts_this_file_and_no_other_answer(
    root: Path, tmp_path: Path
) -> None:
    """Never by an end that looks right; and the next one sends it whole."""
    size = 64 << 20  # more than the sockets of both sides take
    with (root / "huge.bin").open("wb") as file:
        file.truncate(size)
    target = f"/list?{urlencode({'path': str(root / 'huge.bin')})}"
    options = {"processes": 1, "sendfile_root": root, "allow_errors": "worker was ended by"}
    with (
        serving("tests.apps.naming:app", tmp_path, **options) as server,
        Client(server.address) as idle,
        Client(server.address) as reader,
    ):
        assert idle.get("/list").body == b"the body"
        reader.send(head("GET", target))
        assert reader.receive(to_head=True).get("Content-Length") == str(size)
        (victim,) = server.workers()
        server.kill(victim)
        server.wait_until(lambda: server.workers() not in ([], [victim]))
        assert len(reader.read_to_end()) < size
        assert idle.get("/list").body == b"the body"
        with Client(server.address) as client:
            assert len(client.get(target).body) == size
