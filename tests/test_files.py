"""Files that mounts serve: each case of HTTP.md, what nginx does with the same folder, and
what happens to files and clients meanwhile."""

import email.parser
import email.policy
import email.utils
import errno
import gzip
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from poolsrv.errors import ConfigError
from poolsrv.settings.sources import from_options
from tests.client import Client, Response, Truncated, head
from tests.confined import OPENAT2
from tests.drivers import LIBRARIES, driver
from tests.file_cases import MODIFIED, NAMED, TEXT, Case, cases, make_folder
from tests.server import Server, serving
from tests.waiting import wait_until

LINKS = ("inside", "none", "anywhere")
LARGE = random.Random(1).randbytes(3_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own within one that holds what must not be seen."""
    made = tmp_path_factory.mktemp("files") / "static"
    made.mkdir()
    make_folder(made)
    (made / "large.bin").write_bytes(LARGE)
    (made / "medium.bin").write_bytes(LARGE[:100_000])
    return made


@contextmanager
def mounted(directory: Path, *tables: str, **options: Any) -> Iterator[Server]:
    """A server whose file has these tables [[mount]]."""
    config = directory / "poolsrv.toml"
    config.write_text("".join(f"[[mount]]\n{textwrap.dedent(table)}\n" for table in tables))
    usual = {"config": config, "processes": 1, "threads": 2}
    with serving("tests.apps.mounted:root", directory, **usual | options) as made:
        yield made


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mounted(
        tmp_path_factory.mktemp("server"),
        f'path = "/static"\nfolder = "{folder}"',
        f'path = "/both"\nfolder = "{folder}"\napplication = "tests.apps.mounted:root"',
        f"""
        path = "/own"
        folder = "{folder}"
        index = false
        links = "anywhere"
        max-age = "1h"
        immutable = false
        precompressed = false
        headers = {{ "Access-Control-Allow-Origin" = "*" }}
        types = {{ ".txt" = "text/x-own" }}
        """,
        f"""
        path = "/indexed"
        folder = "{folder}"
        headers = {{ "Access-Control-Allow-Origin" = "*", "cache-control" = "no-store" }}
        """,
        f'path = "/robots.txt"\nfile = "{folder}/a.txt"',
        f'path = "/nolinks"\nfolder = "{folder}"\nlinks = "none"',
        f'path = "/allowed"\nfolder = "{folder}"\nallow = ["127.0.0.1"]',
        f'path = "/forbidden"\nfolder = "{folder}"\nallow = ["192.0.2.1"]',
    ) as made:
        yield made


def ask(server: Server, target: str, *fields: str, method: str = "GET") -> Response:
    with Client(server.address) as client:
        client.send(head(method, target, *fields))
        return client.receive(to_head=method == "HEAD")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_case(server: Server, case: Case) -> None:
    response = ask(server, f"/static/{case.path}", *case.fields, method=case.method)
    assert response.status == case.status
    for name, value in case.has.items():
        assert response.get(name) == value
    for name in case.lacks:
        assert response.get(name) is None
    if case.body is not None:
        assert response.body == case.body
    if case.status in (204, 304) or case.method == "HEAD":
        assert response.body == b""


# What a mount may say


def test_options_of_a_mount(server: Server) -> None:
    response = ask(server, "/own/a.txt", "Accept-Encoding: gzip")
    assert response.get("Cache-Control") == "max-age=3600"
    assert response.get("Content-Type") == "text/x-own"
    assert response.get("Access-Control-Allow-Origin") == "*"
    assert ask(server, "/own/app.3f2a91bc.css").get("Cache-Control") == "max-age=3600"
    assert ask(server, "/own/packed.css", "Accept-Encoding: gzip").get("Vary") is None
    assert ask(server, "/own/with/").status == 404
    assert ask(server, "/own/with").status == 404
    assert ask(server, "/own/outside").body == b"secret"
    same = ask(server, "/own/a.txt", f"If-None-Match: {NAMED['tag']}")
    assert (same.status, same.get("Access-Control-Allow-Origin")) == (304, "*")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"file": "/a"}, "it has a folder or a file"),
        ({"status": 404}, "give it an application, a folder, a file, a status"),
        ({"index": "a/b"}, "index is the name of a file"),
        ({"index": True}, "index is the name of a file"),
        ({"links": "outside"}, "links is one of inside, none, anywhere"),
        ({"max-age": -1}, "max-age is"),
        ({"immutable": "perhaps"}, "immutable is"),
        ({"headers": {"A B": "c"}}, "no field of HTTP"),
        ({"headers": {"A": "b\r\nC: d"}}, "no field of HTTP"),
        ({"headers": {"Content-Length": "1"}}, "the server writes Content-Length itself"),
        ({"headers": {"Last-Modified": "1"}}, "the server writes Last-Modified itself"),
        ({"headers": {"content-type": "a/b"}}, "content-type is said by types"),
        ({"headers": "A: b"}, "headers is a table"),
        ({"types": {"css": "text"}}, "no media type"),
        ({"types": {"c/s": "text/css"}}, "no suffix"),
        ({"types": {"css": "text/css\r\nA: b"}}, "no media type"),
        ({"folder": 5}, "folder is"),
        ({"folder": ""}, "folder is"),
        ({"indx": "a"}, "a mount has no indx"),
    ],
    ids=str,
)
def test_what_a_mount_of_files_may_not_say(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_options(mount=[{"path": "/a", "folder": "/srv"} | said], config=None)
    assert words in str(refused.value)


def test_fields_of_a_mount_are_those_of_each_answer(server: Server) -> None:
    """A page elsewhere must be able to read that something is not there, too."""
    for method, target, fields, status in [
        ("GET", "/own/none", (), 404),
        ("HEAD", "/own/none", (), 404),
        ("GET", "/indexed/with", (), 301),
        ("POST", "/own/a.txt", ("Content-Length: 0",), 405),
        ("POST", "/own/a.txt", ("Content-Length: 9",), 405),
        ("OPTIONS", "/own/a.txt", ("Access-Control-Request-Method: GET",), 204),
        ("GET", "/own/a.txt", ("Range: bytes=5000-",), 416),
        ("GET", "/own/a.txt", ("Range: bytes=0-0",), 206),
        ("GET", "/own/a.txt", ("Range: bytes=0-0,500-500",), 206),
        ("GET", "/own/a.txt", ('If-Match: "x"',), 412),
    ]:
        response = ask(server, target, *fields, method=method)
        assert response.status == status
        assert response.get("Access-Control-Allow-Origin") == "*", (method, target)


def test_a_mount_may_have_its_own_cache_control(server: Server) -> None:
    for name in ("a.txt", "app.3f2a91bc.css"):
        assert ask(server, f"/indexed/{name}").all("Cache-Control") == ["no-store"]


def test_what_not_everybody_may_have_is_private(server: Server) -> None:
    response = ask(server, "/allowed/a.txt")
    assert (response.body, response.get("Cache-Control")) == (TEXT, "private, max-age=60")
    cached = ask(server, "/allowed/app.3f2a91bc.css").get("Cache-Control")
    assert cached == "private, max-age=31536000, immutable"
    assert ask(server, "/forbidden/a.txt").status == 403


def test_a_time_that_is_yet_to_come(server: Server, folder: Path) -> None:
    path = folder / "future.txt"
    path.write_bytes(b"future")
    os.utime(path, (2**32, 2**32))
    response = ask(server, "/static/future.txt")
    dates = [response.get(name) or "" for name in ("Last-Modified", "Date")]
    modified, now = map(email.utils.parsedate_to_datetime, dates)
    assert modified <= now
    assert (response.get("ETag") or "").startswith("W/")


def test_links_of_a_mount(server: Server) -> None:
    assert ask(server, "/nolinks/a.txt").status == 200
    assert ask(server, "/nolinks/inside").status == 404
    assert ask(server, "/nolinks/outside").status == 404


def test_a_single_file(server: Server) -> None:
    assert ask(server, "/robots.txt").body == TEXT
    assert ask(server, "/robots.txt", "Range: bytes=0-4").body == TEXT[:5]
    assert ask(server, "/robots.txt/").status == 404
    assert ask(server, "/robots.txt/a.txt").status == 404


def test_what_lies_packed_beside_a_single_file(folder: Path, tmp_path: Path) -> None:
    app = tmp_path / "app.js"
    app.write_bytes(b"plain" * 100)
    for suffix, data in ((".gz", b"gzip"), (".br", b"brotli")):
        app.with_name(f"app.js{suffix}").write_bytes(data)
    tables = [f'path = "/app.js"\nfile = "{app}"', f'path = "/as-is"\nfile = "{app}"']
    tables[1] += "\nprecompressed = false"
    with mounted(tmp_path, *tables) as server:
        response = ask(server, "/app.js", "Accept-Encoding: gzip")
        assert (response.body, response.get("Content-Encoding")) == (b"gzip", "gzip")
        assert response.get("Content-Type") == "text/javascript; charset=utf-8"
        assert response.get("Vary") == "Accept-Encoding"
        assert ask(server, "/app.js", "Accept-Encoding: br").body == b"brotli"
        response = ask(server, "/app.js")
        assert (response.body, response.get("Vary")) == (b"plain" * 100, "Accept-Encoding")
        assert ask(server, "/app.js.gz").status == 200  # of the application, not the file
        response = ask(server, "/as-is", "Accept-Encoding: gzip")
        assert (response.body, response.get("Vary")) == (b"plain" * 100, None)


def test_the_mount_without_a_slash(server: Server, folder: Path) -> None:
    (folder / "index.html").write_bytes(b"the index")
    try:
        response = ask(server, "/static?a=1")
        assert (response.status, response.get("Location")) == (301, "./static/?a=1")
        assert ask(server, "/static/").body == b"the index"
    finally:
        (folder / "index.html").unlink()
    assert ask(server, "/static").status == 404


def test_what_is_no_file_goes_to_the_application(server: Server) -> None:
    assert ask(server, "/both/a.txt").body == TEXT
    for path in ("none", ".hidden", "without/", "a.txt%00", "outside", "with//index.html"):
        response = ask(server, f"/both/{path}")
        assert response.status == 200
        assert b"/both" in response.body, path
    assert ask(server, "/both/a.txt", "Content-Length: 0", method="POST").status == 200
    assert ask(server, "/both/with").status == 301


def test_a_target_without_a_path(tmp_path: Path) -> None:
    """It is the root's, not a folder that lacks its slash."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("the index")
    with (
        mounted(tmp_path, f'path = "/"\nfolder = "{site}"') as server,
        Client(server.address) as client,
    ):
        for target in ("http://any", "http://any?a=1", "http://any/", "/"):
            client.send(f"GET {target} HTTP/1.1\r\nHost: any\r\n\r\n".encode())
            assert client.receive().body == b"the index"


def test_an_application_may_have_files_before_it(folder: Path, tmp_path: Path) -> None:
    with mounted(tmp_path, f'path = "/"\nfolder = "{folder}"') as server:
        assert ask(server, "/a.txt").body == TEXT
        assert ask(server, "/none").status == 200
        assert ask(server, "/").status == 200


def test_a_folder_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    options = {"processes": 1, "mount": f"/static={folder}/"}
    with serving("tests.apps.mounted:root", tmp_path, **options) as server:
        assert ask(server, "/static/a.txt").body == TEXT


def test_a_folder_that_comes_late_is_found(tmp_path: Path) -> None:
    late = tmp_path / "late"
    with mounted(tmp_path, f'path = "/static"\nfolder = "{late}"') as server:
        server.wait_for_log("POOL306 nothing to serve at .*/late")
        assert ask(server, "/static/a.txt").status == 404
        late.mkdir()
        (late / "a.txt").write_bytes(b"a")
        server.wait_until(lambda: ask(server, "/static/a.txt").status == 200)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_where_openat2_is_refused_no_link_is_followed(tmp_path: Path, error: int) -> None:
    """By an old seccomp profile, or an old kernel: found part by part, and no name leads out."""
    folder = tmp_path / "files" / "static"
    folder.mkdir(parents=True)
    make_folder(folder)
    (folder / "loop").symlink_to("with")
    through = [sys.executable, "-m", "tests.confined", str(OPENAT2), str(error)]
    tables = [f'path = "/{links}"\nfolder = "{folder}"\nlinks = "{links}"' for links in LINKS]
    config = tmp_path / "poolsrv.toml"
    config.write_text("".join(f"[[mount]]\n{table}\n" for table in tables))
    options = {"config": config, "processes": 1, "sendfile_root": folder}
    with serving("tests.apps.mounted:root", tmp_path, through=through, **options) as server:
        server.wait_for_log("openat2: symbolic links below folders are not followed")
        for links in LINKS:
            assert ask(server, f"/{links}/a.txt").body == TEXT
            assert ask(server, f"/{links}/with/index.html").body == b"index"
            assert ask(server, f"/{links}/with").status == 301
            followed = 200 if links == "anywhere" else 404
            for path in ("inside", "outside", "absolute", "loop/index.html"):
                assert ask(server, f"/{links}/{path}").status == followed, path
            for path in ("..%2Fsecret", "../secret", "fifo", "none/a", "a.txt/b", "x" * 300):
                assert ask(server, f"/{links}/{path}").status == 404, path


# On a connection


def test_old_clients(server: Server) -> None:
    with Client(server.address) as client:
        client.send(b"GET /static/a.txt HTTP/1.0\r\n\r\n")
        assert client.receive().body == TEXT
        client.expect_end()


def test_files_and_pages_in_turn_on_one_connection(server: Server) -> None:
    with Client(server.address) as client:
        for _ in range(20):
            client.send(head("GET", "/static/a.txt") + head("GET", "/page"))
            client.send(head("GET", "/static/none") + head("GET", "/static/large.bin"))
            assert client.receive().body == TEXT
            assert client.receive().status == 200
            assert client.receive().status == 404
            assert client.receive().body == LARGE


def test_a_body_that_nobody_wants_is_no_request(server: Server) -> None:
    with Client(server.address) as client:
        inner = head("GET", "/static/none")
        client.send(head("GET", "/static/a.txt", f"Content-Length: {len(inner)}") + inner)
        client.send(head("POST", "/static/a.txt", f"Content-Length: {len(inner)}") + inner)
        client.send(head("GET", "/static/a.txt", "Connection: close"))
        assert client.receive().body == TEXT
        assert client.receive().status == 405
        assert client.receive().body == TEXT
        client.expect_end()


@pytest.mark.parametrize("path", ["/static/a.txt", "/static/none", "/robots.txt"])
@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 1000000000"],
        ["Content-Length: 100000", "Expect: 100-continue"],
        ["Transfer-Encoding: chunked"],
    ],
    ids=lambda fields: fields[-1],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_body_is_not_waited_for(
    server: Server, method: str, path: str, fields: list[str]
) -> None:
    """None of it has come when the answer is there; what comes then is no request."""
    with Client(server.address) as client:
        client.send(head(method, path, *fields))
        response = client.receive()
        assert response.status == (405 if method == "POST" else 404 if "none" in path else 200)
        assert response.get("Connection") == "close"
        client.send(b"5\r\nhello\r\n" + head("GET", "/static/a.txt"))
        client.expect_end()
    with Client(server.address) as client:  # what has come along is skipped
        client.send(head("POST", path, "Content-Length: 5") + b"hello" + head("GET", path))
        assert client.receive().status == 405
        assert client.receive().status in (200, 404)


def test_what_an_application_is_behind_waits_for_its_body(server: Server) -> None:
    with Client(server.address) as client:
        client.send(head("POST", "/both/a.txt", "Content-Length: 5", "Expect: 100-continue"))
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert client.receive().status == 200


def parts(response: Response) -> list[tuple[str, bytes]]:
    """(Content-Range, body) of each, as a mail reader takes them apart."""
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    kind = response.get("Content-Type")
    message = parser.parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + response.body)
    assert message.is_multipart()
    assert not message.defects
    return [(part["Content-Range"], part.get_payload(decode=True)) for part in message.iter_parts()]


@pytest.mark.parametrize(
    ("name", "data", "asked"),
    [
        ("a.txt", TEXT, [(500, 509), (0, 9)]),
        ("large.bin", LARGE, [(0, 0), (100_000, 200_000), (2_900_000, 2_999_999)]),
        ("large.bin", LARGE, [(i * 300_000, i * 300_000 + 250_000) for i in range(8)]),
    ],
)
def test_several_ranges(
    server: Server, name: str, data: bytes, asked: list[tuple[int, int]]
) -> None:
    ranges = ",".join(f"{first}-{last}" for first, last in asked)
    with Client(server.address) as client:
        client.send(head("GET", f"/static/{name}", f"Range: bytes={ranges}"))
        response = client.receive()
        assert response.status == 206
        assert parts(response) == [
            (f"bytes {first}-{last}/{len(data)}", data[first : last + 1]) for first, last in asked
        ]
        client.send(head("GET", "/static/a.txt"))
        assert client.receive().body == TEXT


def test_an_id_from_a_proxy_is_no_boundary(folder: Path, tmp_path: Path) -> None:
    options = {"trust_proxy": "127.0.0.1", "request_id_header": "X-Request-ID"}
    table = f'path = "/static"\nfolder = "{folder}"'
    with mounted(tmp_path, table, **options) as server:
        given = "x:/+=;," * 18
        fields = (f"X-Request-ID: {given}", "Range: bytes=0-9,500-509")
        response = ask(server, "/static/a.txt", *fields)
        assert response.get("X-Request-ID") == given
        assert [data for _, data in parts(response)] == [TEXT[:10], TEXT[500:510]]


def test_a_slow_reader_holds_no_thread(folder: Path, tmp_path: Path) -> None:
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(64 << 20)
    with (
        mounted(tmp_path, f'path = "/static"\nfolder = "{folder}"', threads=1) as server,
        socket.create_connection(server.address) as slow,
    ):
        slow.sendall(head("GET", "/static/huge.bin"))
        assert slow.recv(4) == b"HTTP"
        assert ask(server, "/static/a.txt").body == TEXT
        assert ask(server, "/page").status == 200


def test_files_need_no_interpreter(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "poolsrv.toml"
    config.write_text(f'[[mount]]\npath = "/static"\nfolder = "{folder}"\n')
    options = {"config": config, "processes": 1, "threads": 2, "allow_errors": "holding"}
    with (
        serving("tests.apps.holding:app", tmp_path, **options) as server,
        Client(server.address) as page,
        Client(server.address) as files,
    ):
        page.send(head("GET", "/"))
        server.wait_for_log("holding")
        for _ in range(10):
            files.send(head("GET", "/static/a.txt"))
            assert files.receive().body == TEXT
        page.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # it still computes
            page.socket.recv(1, socket.MSG_PEEK)
        page.socket.settimeout(30)
        assert page.receive().status == 200


# What happens to files


def test_a_file_that_is_replaced_is_sent_to_its_end(server: Server, folder: Path) -> None:
    path, new = folder / "replaced.bin", folder / "new.bin"
    path.write_bytes(LARGE * 5)
    new.write_bytes(b"new")
    with Client(server.address) as client:
        client.send(head("GET", "/static/replaced.bin"))
        client.socket.recv(1, socket.MSG_PEEK)
        new.rename(path)
        assert client.receive().body == LARGE * 5
        client.send(head("GET", "/static/replaced.bin"))
        assert client.receive().body == b"new"


def test_a_file_that_gets_shorter_cuts_the_connection(server: Server, folder: Path) -> None:
    mark = len(server.log())
    path = folder / "shorter.bin"
    with path.open("wb") as file:
        file.truncate(256 << 20)
    with Client(server.address) as client:
        client.send(head("GET", "/static/shorter.bin"))
        client.socket.recv(1, socket.MSG_PEEK)
        os.truncate(path, 1000)
        with pytest.raises((Truncated, ConnectionResetError)):
            client.receive()
    server.wait_for_log("a file got shorter while it was sent; the connection is cut", mark)
    assert ask(server, "/static/shorter.bin").get("Content-Length") == "1000"


def test_a_fresh_file_has_a_weak_tag(server: Server, folder: Path) -> None:
    path = folder / "fresh.txt"
    path.write_bytes(b"fresh")
    tag = ask(server, "/static/fresh.txt").get("ETag")
    assert tag is not None
    assert tag.startswith('W/"')
    assert ask(server, "/static/fresh.txt", f"If-None-Match: {tag}").status == 304
    assert ask(server, "/static/fresh.txt", f"If-Range: {tag}", "Range: bytes=0-1").status == 200
    os.utime(path, (MODIFIED, MODIFIED))
    assert ask(server, "/static/fresh.txt").get("ETag") == tag.removeprefix("W/")[:1] + (
        f'{MODIFIED * 10**9:x}-5"'
    )


def test_a_deploy_that_turns_a_link_is_seen(tmp_path: Path) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "a.txt").write_text(release)
    current = tmp_path / "current"
    current.symlink_to("one")
    with mounted(tmp_path, f'path = "/static"\nfolder = "{current}"') as server:
        assert ask(server, "/static/a.txt").body == b"one"
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(current)
        server.wait_until(lambda: ask(server, "/static/a.txt").body == b"two")


# What is told of them


def test_the_access_log_says_why_a_file_is_not_there(folder: Path, tmp_path: Path) -> None:
    """All are 404 to clients."""
    (tmp_path / "secret").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    log = tmp_path / "access.log"
    with mounted(tmp_path, f'path = "/static"\nfolder = "{folder}"', access_log=log) as server:
        assert ask(server, "/static/out").body == b"404 Not Found\n"
        line = wait_until(lambda: log.read_text(), 5)
        assert " 404 14 " in line
        assert "a link that is not followed: see the option links of the mount" in line


def test_log_and_metrics(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with mounted(tmp_path, f'path = "/static"\nfolder = "{folder}"', access_log=log) as server:
        ask(server, "/static/a.txt")
        ask(server, "/static/a.txt", "Range: bytes=0-9")
        ask(server, "/static/none")
        ask(server, "/static/a.txt", method="HEAD")
        lines = wait_until(
            lambda: found if len(found := log.read_text().splitlines()) == 4 else None, 5
        )
        assert '"GET /static/a.txt HTTP/1.1" 200 1000 ' in lines[0]
        assert '"GET /static/a.txt HTTP/1.1" 206 10 ' in lines[1]
        assert '"GET /static/none HTTP/1.1" 404 14 ' in lines[2]
        assert lines[2].endswith(' "no such file"')
        assert '"HEAD /static/a.txt HTTP/1.1" 200 0 ' in lines[3]
        server.wait_for_metric(3, "poolsrv_file_requests_total", status_class="2xx")
        server.wait_for_metric(1, "poolsrv_file_requests_total", status_class="4xx")
        server.wait_for_metric(3, "poolsrv_requests_total", status_class="2xx")
        server.wait_for_metric(1, "poolsrv_requests_total", status_class="4xx")


# What sites and clients do


COLLECT = """
import sys, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.admin", "django.contrib.contenttypes", "django.contrib.auth",
                    "django.contrib.messages", "django.contrib.sessions",
                    "django.contrib.staticfiles"],
    STATIC_URL="/static/", STATIC_ROOT=sys.argv[1],
    STORAGES={"staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}},
)
django.setup()
from django.core.management import call_command
call_command("collectstatic", interactive=False, verbosity=0)
"""


def test_what_django_has_collected(tmp_path: Path) -> None:
    collected = tmp_path / "collected"
    subprocess.run([sys.executable, "-c", COLLECT, collected], check=True, timeout=60)
    manifest = json.loads((collected / "staticfiles.json").read_text())["paths"]
    assert len(manifest) > 100
    with (
        mounted(tmp_path, f'path = "/static"\nfolder = "{collected}"') as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for plain, hashed in manifest.items():
            data = (collected / hashed).read_bytes()
            answer = client.get(f"/static/{hashed}")
            assert answer.status_code == 200
            assert answer.content == data
            # A hash that has no letter, by chance, might be a date.
            digest = hashed.rsplit(".", 2 if Path(plain).suffix else 1)[1]
            assert ("immutable" in answer.headers["cache-control"]) != digest.isdigit()
            kind = answer.headers["content-type"]
            assert (kind == "application/octet-stream") == (not Path(plain).suffix)
            again = client.get(f"/static/{plain}", headers={"If-None-Match": "x"})
            assert "immutable" not in again.headers["cache-control"]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/static/large.bin"
    got = tmp_path / "got.bin"
    got.write_bytes(LARGE[:1_234_567])
    curl = ["curl", "--silent", "--show-error", "--fail"]
    subprocess.run([*curl, "-C", "-", "-o", got, url], check=True, timeout=30)
    assert got.read_bytes() == LARGE
    # Asked again with the time that curl has kept, it gets nothing new.
    subprocess.run([*curl, "-R", "-o", got, url], check=True, timeout=30)
    newer = subprocess.run(
        [*curl, "-z", got, "-o", tmp_path / "other", "-w", "%{http_code}", url],
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    )
    assert newer.stdout == "304"


@pytest.mark.parametrize("name", LIBRARIES)
def test_clients_unpack_what_is_packed(server: Server, folder: Path, name: str) -> None:
    data = b"a { color: red }" * 1000
    (folder / "real.css").write_bytes(data)
    (folder / "real.css.gz").write_bytes(gzip.compress(data))
    server.wait_until(
        lambda: ask(server, "/static/real.css").get("Vary"),  # known for a second
    )
    with driver(name) as client:
        reply = client.send(
            "GET", f"{server.url}/static/real.css", headers={"Accept-Encoding": "gzip"}
        )
        assert reply.status == 200
        assert reply.body == data


# The same folder behind nginx


@pytest.fixture(scope="module")
def other(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """nginx, as a site would be told to serve the folder."""
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    directory = tmp_path_factory.mktemp("nginx")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"""
        daemon off; master_process off; pid {directory}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off; {temporary} keepalive_requests 100000;
            include /etc/nginx/mime.types; default_type application/octet-stream;
            sendfile on; tcp_nopush on; if_modified_since before; gzip_static on; gzip_vary on;
            max_ranges 100; absolute_redirect off;
            server {{
                listen 127.0.0.1:{port};
                location /static/ {{ alias {folder}/; disable_symlinks on from={folder}; }}
            }}
        }}
        """
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")],
            stderr=log,
        )
    address = ("127.0.0.1", port)

    def accepts() -> bool:
        try:
            socket.create_connection(address).close()
        except ConnectionRefusedError:
            return False
        return True

    try:
        wait_until(accepts, 10)
        yield address
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Asked:
    """A request that both get; `{tag}` in a field is what each calls its version."""

    method: str
    path: str
    fields: tuple[str, ...]

    def value(self, name: str) -> str:
        """Of a field; empty if it is absent."""
        found = [text for text in self.fields if text.lower().startswith(f"{name.lower()}: ")]
        return found[0].partition(": ")[2] if found else ""


FILES = [
    *["a.txt"] * 12,
    *["medium.bin"] * 4,
    *["packed.css"] * 4,
    "empty.txt",
    "stale.css",
    "with/",
    "with",
    "without/",
    "none",
    "with%20space.txt",
    "inside",
    "outside",
    ".hidden",
    "with/../a.txt",
    "with//index.html",
    "with%2Findex.html",
    "a.txt%00",
]
TIMES = [NAMED["before"], NAMED["date"], NAMED["after"], "Tuesday, 14-Nov-23 22:13:20 GMT", "never"]
TAGS = ["{tag}", "W/{tag}", '"x"', '"x", {tag}', "*", "x", '"x" {tag}']
CODINGS = ["gzip", "gzip;q=0", "gzip;q=0.5", "identity", "deflate, gzip;q=1.0", "*;q=0"]


def generated(chance: random.Random) -> Asked:
    """One request, mostly one that means something."""
    fields = []

    def maybe(likely: float, name: str, *values: str) -> None:
        if chance.random() < likely:
            fields.append(f"{name}: {chance.choice(values)}")

    def number() -> str:
        return str(chance.choice([0, 1, 5, 99, 500, 998, 999, 1000, 1001, 5000, 10**25]))

    def part() -> str:
        match chance.randrange(12):
            case 0 | 1:
                return f"-{number()}"
            case 2 | 3:
                return f"{number()}-"
            case 4:
                return chance.choice(["-", "a-b", "5", "1--2", "", "1-2-3", "0x1-2", "+1-2"])
            case _:
                return f"{number()}-{number()}"

    def ranges() -> str:
        count = chance.choice([1, 1, 1, 1, 2, 2, 3, 12])
        return (
            chance.choice(["bytes"] * 9 + ["lines"]) + "=" + ",".join(part() for _ in range(count))
        )

    maybe(0.6, "Range", ranges())
    maybe(0.2, "If-Range", *TAGS[:3], *TIMES)
    maybe(0.2, "If-None-Match", *TAGS)
    maybe(0.2, "If-Modified-Since", *TIMES)
    maybe(0.1, "If-Match", *TAGS)
    maybe(0.1, "If-Unmodified-Since", *TIMES)
    maybe(0.3, "Accept-Encoding", *CODINGS)
    method = chance.choice(["GET"] * 16 + ["HEAD"] * 3 + ["POST", "OPTIONS", "DELETE"])
    return Asked(method, chance.choice(FILES), tuple(fields))


def summary(response: Response) -> tuple[Any, ...]:
    """What both must agree in."""
    if (response.get("Content-Type") or "").startswith("multipart/"):
        return response.status, "parts", parts(response) if response.body else []
    if response.status >= 300:
        return response.status, response.get("Content-Range")
    return (
        response.status,
        response.get("Content-Length"),
        response.get("Content-Range"),
        response.get("Content-Encoding"),
        response.body,
    )


def are_valid(specs: list[str]) -> bool:
    """Are they all specs of ranges, of which empty ones are none?"""
    for spec in filter(None, specs):
        match = re.fullmatch(r"(\d*)-(\d*)", spec)
        if not match or not any(match.groups()):
            return False
        if all(match.groups()) and int(match[1]) > int(match[2]):
            return False
    return any(specs)


class Peer:
    """A server that is asked over and over, on a new connection when it has closed the last."""

    def __init__(self, address: tuple[str, int], is_rash: bool = False) -> None:
        self.address = address
        self.is_rash = is_rash
        self.client = Client(address)
        self.tag = self.ask(Asked("GET", "a.txt", ())).get("ETag") or ""

    def ask(self, asked: Asked) -> Response:
        fields = [text.replace("{tag}", self.tag) for text in asked.fields]
        self.client.send(head(asked.method, f"/static/{asked.path}", *fields))
        try:
            response = self.client.receive(to_head=asked.method == "HEAD")
        except Truncated:  # it ends connections between two requests
            if not self.is_rash:
                raise
            self.client.close()
            self.client = Client(self.address)
            return self.ask(asked)
        if response.get("Connection") == "close":
            self.client.close()
            self.client = Client(self.address)
        return response


def reason(asked: Asked, ours: Response, theirs: Response) -> str | None:
    """Why the two differ; None: nobody knows."""
    specs = asked.value("Range").partition("=")[2].split(",")
    both = (ours.status, theirs.status)
    if ours.status == 405 and theirs.status in (301, 403, 404):
        return "nginx looks for the file before it looks at the method"
    if asked.method == "OPTIONS":
        return "nginx knows no OPTIONS"
    if asked.path == ".hidden":
        return "nginx shows hidden files"
    if asked.path in ("with/../a.txt", "with//index.html", "with%2Findex.html"):
        return "nginx resolves paths"
    if asked.path == "a.txt%00":
        return "nginx finds a NUL malformed"
    if asked.path == "without/" and both == (404, 403):
        return "nginx says that there is a folder"
    if asked.path == "outside" and both == (404, 403):
        return "nginx says that there is a file"
    if asked.path == "inside" and theirs.status == 403:
        return "nginx follows all links, or none"
    if theirs.get("Content-Encoding") and theirs.status == 200 and ours.status in (206, 416):
        return "nginx sends no ranges of codings"
    if asked.path == "stale.css":
        return "nginx sends the stale coding"
    if asked.method == "HEAD" and asked.value("Range"):
        return "nginx takes a Range of HEAD"
    if asked.value("If-None-Match") and asked.value("If-Modified-Since") and 304 in both:
        return "nginx wants both validators to match, not the tag alone"
    if asked.value("If-Match") and asked.value("If-Unmodified-Since") and theirs.status == 412:
        return "nginx wants both conditions to hold, not the tag's alone"
    if asked.value("If-Unmodified-Since") == "never" and 412 in both:
        return "nginx takes what is no date for an old one"
    if asked.value("If-None-Match") in ("x", '"x" {tag}') or asked.value("If-Match") in (
        "x",
        '"x" {tag}',
    ):
        return "nginx reads lists of tags loosely"
    if asked.path == "empty.txt" and both == (200, 416):
        return "nginx says that an empty file has no ranges"
    if not are_valid(specs) and both == (200, 416):
        return "nginx refuses malformed ranges, we ignore them"
    if re.search(r"\d{20}", asked.value("Range")):
        return "nginx refuses numbers beyond 64 bits"
    if len(specs) > 1:
        return "nginx joins no ranges, and sends the whole if they are longer in sum"
    return None


def test_nginx_answers_the_same_but_for_known_reasons(
    server: Server, other: tuple[str, int]
) -> None:
    chance = random.Random(20261126)
    reasons: Counter[str] = Counter()
    peers = Peer(server.address), Peer(other, is_rash=True)
    for _ in range(4000):
        asked = generated(chance)
        ours, theirs = (peer.ask(asked) for peer in peers)
        if summary(ours) == summary(theirs):
            reasons["the same"] += 1
            continue
        why = reason(asked, ours, theirs)
        assert why is not None, (asked, ours, theirs)
        reasons[why] += 1
    for peer in peers:
        peer.client.close()
    assert reasons["the same"] > 2000, reasons
    assert len(reasons) == 20, reasons  # each reason was needed
