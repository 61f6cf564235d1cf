"""Pages of the server's own answers, and maintenance."""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from poolsrv.errors import ConfigError
from poolsrv.settings.pages import ErrorPage
from poolsrv.settings.sources import from_options
from tests.apps.gate import Gate
from tests.client import Client, Response
from tests.server import Server
from tests.test_mounts import check
from tests.test_scripts import start

APPS = "tests.apps.mounted"


def ask(client: Client, target: str, *lines: str, method: str = "GET") -> Response:
    head = [f"{method} {target} HTTP/1.1", "Host: any", *lines, "", ""]
    client.send("\r\n".join(head).encode("latin-1"))
    return client.receive(to_head=method == "HEAD")


def test_pages_for_what_the_server_answers(server: Callable[..., Server], tmp_path: Path) -> None:
    for name, text in [("lost.html", "<p>lost</p>"), ("broken.json", "{}"), ("bad.txt", "bad")]:
        (tmp_path / name).write_text(text)
    file = tmp_path / "poolsrv.toml"
    file.write_text(f"""
[error-pages]
404 = "{tmp_path}/lost.html"
500 = "{tmp_path}/broken.json"
400 = "{tmp_path}/bad.txt"
[[mount]]
path = "/app"
application = "tests.apps.scripted:app"
""")
    made = server("", config=file, allow_errors="POOL", access_log="-")
    with Client(made.address) as client:
        response = ask(client, "/")
        assert (response.status, response.body) == (404, b"<p>lost</p>")
        assert response.all("Content-Type") == ["text/html; charset=utf-8"]
        response = ask(client, "/", method="HEAD")
        assert (response.status, response.get("Content-Length")) == (404, "11")
        response = ask(client, "/app/raise")
        assert (response.status, response.body) == (500, b"{}")
        assert response.get("Content-Type") == "application/json"
        # What the application says itself stays.
        assert ask(client, "/app/fail").body not in (b"", b"{}")
        client.send(b"POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")
        response = client.receive()
        assert (response.status, response.body) == (400, b"bad")
        client.expect_end()
    assert '"GET / HTTP/1.1" 404 11' in made.log()
    assert '"HEAD / HTTP/1.1" 404 0' in made.log()
    # A reload reads them anew.
    (tmp_path / "lost.html").write_text("<p>found</p>")
    mark = len(made.log())
    os.kill(made.pid, signal.SIGHUP)
    made.wait_for_log("has taken over", mark)
    with Client(made.address) as client:
        assert ask(client, "/").body == b"<p>found</p>"


def test_the_page_of_the_queue(server: Callable[..., Server], tmp_path: Path) -> None:
    page = tmp_path / "busy.html"
    page.write_text("<p>busy</p>" + " " * 16_000)
    made = server(
        "tests.apps.probe:app",
        processes=1,
        threads=1,
        queue_size=0,
        error_pages=f"503={page}",
    )
    gate = Gate(tmp_path)
    with closing(gate), Client(made.address) as busy, Client(made.address) as client:
        busy.send(b"GET /hold?gate=gate HTTP/1.1\r\nHost: a\r\n\r\n")
        made.wait_until(gate.arrivals)
        response = ask(client, "/")
        assert (response.status, len(response.body)) == (503, 16_011)
        assert response.get("Retry-After") == "1"


def test_the_page_of_a_file_that_is_not_there(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    """Whatever the client accepts, and in whichever version of HTTP it asks."""
    lost = tmp_path / "lost.html"
    lost.write_text("<p>lost</p>")
    (tmp_path / "files").mkdir()
    made = server("", mount=f"/={tmp_path}/files/", error_pages=f"404={lost}")
    with Client(made.address) as client:
        for lines in ((), ("Accept: application/json",), ("Accept-Encoding: gzip",)):
            response = ask(client, "/none", *lines)
            assert (response.status, response.body) == (404, b"<p>lost</p>")
            assert response.all("Content-Type") == ["text/html; charset=utf-8"]
        response = ask(client, "/none", method="HEAD")
        assert (response.status, response.get("Content-Length")) == (404, "11")
        client.send(b"GET /none HTTP/1.0\r\n\r\n")
        response = client.receive()
        assert (response.status, response.body) == (404, b"<p>lost</p>")
        client.expect_end()


def test_pages_for_clients_of_http_1_0(server: Callable[..., Server], tmp_path: Path) -> None:
    """Whoever answers: the supervisor, a worker in C, a worker behind the application."""
    pages = []
    for status in (400, 408, 413, 500, 503):
        page = tmp_path / f"{status}.html"
        page.write_text(f"<p>{status}</p>")
        pages.append(f"{status}={page}")
    made = server(
        "tests.apps.probe:app",
        processes=1,
        threads=1,
        queue_size=0,
        limit_request_body=10,
        header_timeout="500ms",
        error_pages=pages,
        allow_errors="POOL",
    )

    def refused(text: bytes, status: int) -> None:
        with Client(made.address) as client:
            client.send(text)
            response = client.receive()
            assert (response.status, response.body) == (status, f"<p>{status}</p>".encode())
            assert response.get("Content-Length") == str(len(response.body))
            client.expect_end()

    refused(b"GET /a b HTTP/1.0\r\n\r\n", 400)
    refused(b"POST / HTTP/1.0\r\nContent-Length: 11\r\n\r\n", 413)
    refused(b"GET /fail HTTP/1.0\r\n\r\n", 500)
    refused(b"GET / HTTP/1.0\r\nHost: a", 408)
    gate = Gate(tmp_path)
    with closing(gate), Client(made.address) as busy:
        busy.send(b"GET /hold?gate=gate HTTP/1.0\r\n\r\n")
        made.wait_until(gate.arrivals)
        refused(b"GET / HTTP/1.0\r\n\r\n", 503)


@pytest.mark.parametrize("mounts", [(), (f"/api={APPS}:api",)])
def test_maintenance(
    server: Callable[..., Server], tmp_path: Path, mounts: tuple[str, ...]
) -> None:
    file, page = tmp_path / "down.html", tmp_path / "busy.txt"
    page.write_text("busy")
    made = server(
        f"{APPS}:root",
        mount=list(mounts),
        maintenance_file=file,
        maintenance_bypass="10.0.0.0/8",
        trust_proxy="127.0.0.1",
        error_pages=f"503={page}",
    )
    gauge = "poolsrv_maintenance", frozenset[tuple[str, str]]()
    with Client(made.address) as client:
        assert ask(client, "/").status == 200
        assert made.metrics()[gauge] == 0
        file.touch()
        made.wait_for_log("down.html is there, and applications get no requests")
        response = ask(client, "/")
        assert (response.status, response.body) == (503, b"busy")
        assert response.get("Retry-After") == "60"
        file.write_text("<p>back at noon</p>")
        response = ask(client, "/api")
        assert (response.status, response.body) == (503, b"<p>back at noon</p>")
        assert response.get("Content-Type") == "text/html; charset=utf-8"
        response = ask(client, "/", method="HEAD")
        assert (response.status, response.get("Content-Length")) == (503, "19")
        assert ask(client, "/", "X-Forwarded-For: 10.1.2.3").status == 200
        assert ask(client, "/", "X-Forwarded-For: 11.1.2.3").status == 503
        assert made.metrics()[gauge] == 1
        assert made.status()["server"]["maintenance"] is True
        # One that is there when a worker starts is seen, too.
        mark = len(made.log())
        os.kill(made.pid, signal.SIGHUP)
        made.wait_for_log("has taken over", mark)
        assert ask(client, "/").status == 503
        file.unlink()
        made.wait_for_log("maintenance is over")
        assert ask(client, "/").status == 200
    with Client(made.address) as client:
        file.write_text("<p>again</p>")
        made.wait_for_log("is there, and", mark)
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        assert client.receive().body == b"<p>again</p>"


def test_files_are_served_during_maintenance(server: Callable[..., Server], tmp_path: Path) -> None:
    """And what is no file is the application's, so it waits."""
    folder, file = tmp_path / "files", tmp_path / "down"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    settings = tmp_path / "poolsrv.toml"
    settings.write_text(f"""
maintenance-file = "{file}"
[[mount]]
path = "/"
folder = "{folder}"
application = "{APPS}:root"
""")
    file.touch()
    made = server("", config=settings)
    with Client(made.address) as client:
        assert ask(client, "/a.txt").body == b"a"
        response = ask(client, "/b.txt")
        assert (response.status, response.get("Retry-After")) == (503, "60")
        assert ask(client, "/a.txt").body == b"a"
        file.unlink()
        made.wait_for_log("maintenance is over")
        assert ask(client, "/b.txt").body.startswith(b"root")


def test_a_page_that_is_too_long(tmp_path: Path) -> None:
    page = tmp_path / "long.html"
    page.write_bytes(bytes(16_385))
    done = start("--error-pages", f"503={page}")
    assert done.returncode == 2
    assert "is longer than 16 KiB" in done.stderr
    done = start("--error-pages", f"503={page}x.html")
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr
    done = check(
        tmp_path, f"{APPS}:app", "--error-pages", "503=b.html", "--reload-on-touch", "auto"
    )
    assert "b.html: No such file or directory" in done.stderr
    assert "no application is a file" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"error_pages": "200=a.html"}, "the server answers by itself with 400, "),
        ({"error_pages": "503"}, "give STATUS=FILE, such as 503=busy.html"),
        ({"error_pages": "503=a.png"}, "it ends with .html"),
        ({"error_pages": {"503": "a.png"}}, "it ends with .html"),
        ({"error_pages": ["503=a.html", "503=b.html"]}, "two pages for 503"),
        ({"maintenance_bypass": "unix"}, "there is no maintenance without its file"),
    ],
    ids=str,
)
def test_settings_that_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_options(config=None, **options)
    assert words in str(refused.value)


def test_how_pages_are_given() -> None:
    settings = from_options(error_pages={"503": "a.html", "404": "b.txt"}, config=None)
    assert settings.error_pages == (ErrorPage(503, "a.html"), ErrorPage(404, "b.txt"))
