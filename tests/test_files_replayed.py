"""What went wrong with files, mounts, pages and touched files in other servers, asked of this one.

Each test names the public report that it comes from.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.client import Client, Response, head
from tests.server import Server
from tests.waiting import wait_until

Start = Callable[..., Server]

APPS = "tests.apps.mounted"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "static"
    made.mkdir()
    return made


def get(address: tuple[str, int], target: str, *fields: str) -> Response:
    with Client(address) as client:
        client.send(head("GET", target, *fields))
        return client.receive()


def test_the_end_of_a_range_is_kept(server: Start, folder: Path) -> None:
    """whitenoise 301, uWSGI 1413, falcon 1991: 206 with all of the file, or all behind its start.

    Also when the reader is slow, so that what is left is sent later, by other hands.
    """
    data = random.Random(1).randbytes(30 << 20)
    (folder / "film.mp4").write_bytes(data)
    made = server(f"{APPS}:root", processes=1, threads=1, mount=f"/static={folder}/")
    first, last = 1_000_003, 28_000_001
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(made.address)
        fields = (f"Range: bytes={first}-{last}", "Connection: close")
        slow.sendall(head("GET", "/static/film.mp4", *fields))
        assert get(made.address, "/static/film.mp4", "Range: bytes=0-1").body == data[:2]
        received = bytearray()
        while piece := slow.recv(1 << 20):
            received += piece
    top, _, body = bytes(received).partition(b"\r\n\r\n")
    assert f"Content-Range: bytes {first}-{last}/{len(data)}".encode() in top
    assert body == data[first : last + 1]


@pytest.mark.parametrize("ranges", ["0-0", "5-5", "-1", "999-999"])
def test_one_byte_is_a_range(server: Start, folder: Path, ranges: str) -> None:
    """whitenoise 711: 416, which keeps Safari from playing a film."""
    (folder / "a.bin").write_bytes(bytes(1000))
    made = server("", mount=f"/static={folder}/")
    response = get(made.address, "/static/a.bin", f"Range: bytes={ranges}")
    assert (response.status, len(response.body)) == (206, 1)


def test_names_beyond_ascii(server: Start, folder: Path) -> None:
    """granian 733, whitenoise 3.2.3: 404, or an exception for bytes that are no UTF-8."""
    for name in ("größe.txt", "日本語.txt", "a b+c&d=e.txt", "100%.txt", "q?.txt", "#.txt", "a;b"):
        (folder / name).write_text(name)
    (folder / os.fsdecode(b"latin\xe9.txt")).write_text("latin")
    made = server("", mount=f"/static={folder}/")
    for path in folder.iterdir():
        answer = requests.get(
            f"{made.url}/static/{requests.utils.quote(os.fsencode(path.name))}", timeout=10
        )
        assert answer.content == path.read_bytes()
    for bad in ("%ff%fe", "%c3%28", "%ed%a0%80"):
        assert get(made.address, f"/static/{bad}").status == 404


def test_a_folder_that_comes_after_the_start(server: Start, folder: Path) -> None:
    """uWSGI 1988: what is made below a folder that was empty at the start is 404 for ever."""
    made = server("", mount=f"/public={folder}/")
    assert get(made.address, "/public/foo/bar").status == 404
    (folder / "foo").mkdir()
    (folder / "foo" / "bar").write_text("bar")
    assert get(made.address, "/public/foo/bar").body == b"bar"


def test_the_index_has_its_type(server: Start, folder: Path) -> None:
    """uWSGI 159: no Content-Type; granian 783, glassfish 1823: no index, or broken links in it."""
    (folder / "docs").mkdir()
    (folder / "docs" / "index.html").write_text("<p>index")
    made = server("", mount=f"/static={folder}/")
    response = get(made.address, "/static/docs/")
    assert response.get("Content-Type") == "text/html; charset=utf-8"
    answer = requests.get(f"{made.url}/static/docs?v=1", timeout=10)
    assert answer.url == f"{made.url}/static/docs/?v=1"


def test_vary_stands_in_each_answer_that_varies(server: Start, folder: Path) -> None:
    """Caddy 5849: it was missing in 206 and 304, and caches mixed codings up."""
    (folder / "a.css").write_text("a {}" * 100)
    (folder / "a.css.gz").write_bytes(b"packed" * 10)
    old = time.time() - 1000
    for path in folder.iterdir():
        os.utime(path, (old, old))
    made = server("", processes=1, mount=f"/static={folder}/")
    tags = []
    for coding in ("gzip", "identity"):
        accept = f"Accept-Encoding: {coding}"
        whole = get(made.address, "/static/a.css", accept)
        part = get(made.address, "/static/a.css", accept, "Range: bytes=0-3")
        same = get(made.address, "/static/a.css", accept, f"If-None-Match: {whole.get('ETag')}")
        assert [whole.status, part.status, same.status] == [200, 206, 304]
        for response in (whole, part, same):
            assert response.get("Vary") == "Accept-Encoding"
        tags.append(whole.get("ETag"))
    # And a tag of one coding is none of the other.
    assert tags[0] != tags[1]
    response = get(
        made.address, "/static/a.css", "Accept-Encoding: gzip", f"If-None-Match: {tags[1]}"
    )
    assert response.status == 200


@pytest.mark.parametrize("stamp", [0, 1, 315532800])
def test_a_time_that_builds_write_does_not_make_versions_equal(
    server: Start, folder: Path, stamp: int
) -> None:
    """whitenoise 222, Caddy 5734, 7096: 304 for another file of the same size."""
    path = folder / "index.html"
    made = server("", processes=1, mount=f"/static={folder}/")
    tags = []
    for text in ("one", "two"):
        new = folder / "new"
        new.write_text(text)
        os.utime(new, (stamp, stamp))
        new.rename(path)
        response = get(made.address, "/static/index.html")
        tags.append(response.get("ETag"))
        assert response.body == text.encode()
    assert tags[0] != tags[1]
    assert get(made.address, "/static/index.html", f"If-None-Match: {tags[0]}").status == 200


def test_a_client_that_leaves_is_no_error(server: Start, folder: Path) -> None:
    """uWSGI 22, 148, 307: a broken pipe was logged as an error, and HEAD complained."""
    (folder / "large.bin").write_bytes(bytes(20 << 20))
    made = server("", mount=f"/static={folder}/")
    for _ in range(20):
        client = Client(made.address)
        client.send(head("GET", "/static/large.bin"))
        client.socket.recv(10)
        client.reset()
    with Client(made.address) as client:
        client.send(head("HEAD", "/static/large.bin"))
        assert client.receive(to_head=True).get("Content-Length") == str(20 << 20)
    assert "large.bin" not in made.log()


@pytest.mark.parametrize(
    ("target", "script", "path"),
    [("/", "", "/"), ("/x", "", "/x"), ("/api", "/api", ""), ("/api/", "/api", "/")],
)
def test_script_name_is_no_slash(server: Start, target: str, script: str, path: str) -> None:
    """webob 61, twisted 3721, granian 721, uWSGI 1011: "/" for the root, so links began with //;
    or the prefix stood in PATH_INFO as well."""
    made = server(f"{APPS}:root", mount=f"/api={APPS}:api")
    assert get(made.address, target).body.decode().split("\n")[1:] == [script, path]


def test_a_file_that_is_saved_by_renaming_is_seen(server: Start, tmp_path: Path) -> None:
    """Flask 1355, gunicorn 3243, wayfire 2210: editors write beside it and rename; a deploy turns
    a link; the watch is left with the file of before."""
    touched, link = tmp_path / "touched", tmp_path / "link"
    (tmp_path / "one").touch()
    link.symlink_to("one")
    touched.touch()
    made = server("tests.apps.hello:app", processes=1, reload_on_touch=[touched, link])

    def reloads_after(change: Callable[[], object]) -> None:
        mark = len(made.log())
        change()
        made.wait_for_log("has taken over", mark, deadline=20)
        assert made.log_since(mark).count("has changed: loading") == 1

    def save() -> None:
        new = tmp_path / "touched.new"
        new.write_text(str(time.monotonic_ns()))
        new.rename(touched)

    def turn() -> None:
        (tmp_path / "two").write_text("two")
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(link)

    reloads_after(save)
    reloads_after(save)  # the watch has followed
    reloads_after(turn)
    reloads_after((tmp_path / "two").touch)


def test_the_page_of_maintenance_is_no_page_of_the_site(server: Start, tmp_path: Path) -> None:
    """hubmap 1854, shopware 1562, kamal-proxy 174: it came with 200, without Retry-After, or told
    health checks by HEAD something else."""
    file = tmp_path / "down.html"
    file.write_text("<p>soon")
    made = server("tests.apps.hello:app", maintenance_file=file)
    for method in ("GET", "HEAD", "POST"):
        with Client(made.address) as client:
            client.send(head(method, "/", "Content-Length: 0"))
            response = client.receive(to_head=method == "HEAD")
            assert response.status == 503
            assert response.get("Retry-After") == "60"
            assert response.get("Content-Type") == "text/html; charset=utf-8"
            assert response.get("Content-Length") == "7"
            assert response.get("ETag") is None
    assert made.admin("/readyz").endswith(b"ready\n")


def test_maintenance_under_load(server: Start, tmp_path: Path) -> None:
    """On and off while clients ask: each answer is whole, and the application's or the page."""
    file, new = tmp_path / "down.html", tmp_path / "new"
    page = b"<p>" + b"soon " * 1000
    made = server(
        "tests.apps.hello:app",
        processes=2,
        threads=2,
        maintenance_file=file,
        mount=f"/static={tmp_path}/",
    )
    (tmp_path / "a.txt").write_text("a")
    over = threading.Event()
    seen: list[set[tuple[int, bytes]]] = [set() for _ in range(4)]
    failed: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            with Client(made.address) as client:
                while not over.is_set():
                    client.send(head("GET", "/") * 3 + head("GET", "/static/a.txt"))
                    answers = [client.receive() for _ in range(4)]
                    seen[number] |= {(one.status, one.body) for one in answers[:3]}
                    assert answers[3].body == b"a"
        except BaseException as error:  # noqa: BLE001 - of another thread
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            new.write_bytes(page)
            mark = len(made.log())
            new.rename(file)
            made.wait_for_log("POOL414", mark, deadline=20)
            file.unlink()
            made.wait_for_log("POOL415", mark, deadline=20)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failed
    hello = get(made.address, "/").body
    # A request between the file's end and the log's word finds none, and is told in a line.
    line = b"503 Service Unavailable: maintenance\n"
    assert set().union(*seen) <= {(200, hello), (503, page), (503, line)}
    assert (200, hello) in seen[0]
    assert {status for found in seen for status, _ in found} == {200, 503}


def test_a_server_for_a_test_leaves_nothing_behind() -> None:
    """waitress, werkzeug, cheroot in tests: a thread, a descriptor or the port stays."""
    import poolsrv

    def app(_environ: object, start: Callable[..., object]) -> list[bytes]:
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    def held() -> tuple[int, int]:
        return threading.active_count(), sum(1 for _ in Path("/proc/self/fd").iterdir())

    with poolsrv.running(app) as made:
        assert requests.get(made.url, timeout=10).content == b"ok"
    before = held()
    port = 0
    for _ in range(20):
        with poolsrv.running(app, bind=f"127.0.0.1:{port}") as made:
            port = made.port or 0
            with requests.Session() as site:
                assert site.get(made.url, timeout=10).content == b"ok"
    wait_until(lambda: held() == before, 5)
