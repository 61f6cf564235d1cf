"""What others have published as right for files: the facts, and where we differ.

The tables of Go's net/http (fs_test.go) are for a file of 11 bytes, for conditions with a tag or
a time of the file, and for paths.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.client import Client, Response, head
from tests.server import Server, serving

DATA = b"0123456789\n"
TIME = datetime(2014, 6, 25, 17, 12, 18, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("published")
    (made / "file").write_bytes(DATA)
    (made / "style.css").write_bytes(b"body {}\n")
    (made / "index.html").write_bytes(b"index.html says hello\n")
    (made / "below").mkdir()
    for path in made.iterdir():
        # 123 nanoseconds: what a date does not tell must not matter.
        os.utime(path, ns=(0, int(TIME.timestamp()) * 10**9 + 123))
    return made


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    options = {"processes": 1, "threads": 2, "mount": f"/test={folder}/"}
    with serving("tests.apps.mounted:root", directory, **options) as made:
        yield made


def ask(server: Server, path: str, *fields: str, method: str = "GET") -> Response:
    with Client(server.address) as client:
        client.send(head(method, f"/test{path}", *fields))
        return client.receive(to_head=method == "HEAD")


# A file of 11 bytes. Parts that are nearer than 80 bytes are one here, so that Go's several parts
# are one that holds them all, and its "wasteful" ones are the whole file as a part.
@pytest.mark.parametrize(
    ("ranges", "status", "first", "end"),
    [
        ("0-4", 206, 0, 5),
        ("2-", 206, 2, 11),
        ("-5", 206, 6, 11),
        ("3-7", 206, 3, 8),
        ("0-0,-2", 206, 0, 11),  # Go: 0-0 and 9-10
        ("0-1,5-8", 206, 0, 9),  # Go: 0-1 and 5-8
        ("0-1,5-", 206, 0, 11),  # Go: 0-1 and 5-10
        ("5-1000", 206, 5, 11),
        ("0-,1-,2-,3-,4-", 206, 0, 11),  # Go: 200
        ("0-9", 206, 0, 10),
        ("0-10", 206, 0, 11),
        ("0-11", 206, 0, 11),
        ("10-11", 206, 10, 11),
        ("10-", 206, 10, 11),
        ("11-", 416, 0, 0),
        ("11-12", 416, 0, 0),
        ("12-12", 416, 0, 0),
        ("11-100", 416, 0, 0),
        ("12-100", 416, 0, 0),
        ("100-", 416, 0, 0),
        ("100-1000", 416, 0, 0),
    ],
)
def test_ranges(server: Server, ranges: str, status: int, first: int, end: int) -> None:
    response = ask(server, "/file", f"Range: bytes={ranges}")
    assert response.status == status
    if status == 416:
        assert response.get("Content-Range") == "bytes */11"
    else:
        assert response.get("Content-Range") == f"bytes {first}-{end - 1}/11"
        assert response.body == DATA[first:end]


def at(seconds: int) -> str:
    return format_datetime(TIME.replace(second=TIME.second + seconds), usegmt=True)


# {tag} is the file's own.
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("fields", "status", "part"),
    [
        ([], 200, None),
        ([f"If-Modified-Since: {at(0)}"], 304, None),
        (["If-None-Match: {tag}"], 304, None),
        (['If-None-Match: "baz", W/{tag}'], 304, None),
        (['If-None-Match: "Foo"'], 200, None),
        (["If-None-Match: ,"], 200, None),
        (["Range: bytes=0-4"], 206, "bytes 0-4/8"),
        (["Range: bytes=0-4", "If-Range: {tag}"], 206, "bytes 0-4/8"),
        (["Range: bytes=0-4", "If-Range: W/{tag}"], 200, None),
        (["Range: bytes=10-20"], 416, "bytes */8"),
        (["Range: bytes=0-4", 'If-Range: "B"'], 200, None),
        (["Range: bytes=0-4", f"If-Range: {at(0)}"], 206, "bytes 0-4/8"),
        (["Range: bytes=0-4", f"If-Range: {at(1)}"], 200, None),
        (['If-Match: "Z", {tag}'], 200, None),
        (["If-Match: *"], 200, None),
        (['If-Match: "B"'], 412, None),
        (["If-Match: W/{tag}"], 412, None),
        ([f"If-Unmodified-Since: {at(0)}"], 200, None),
        ([f"If-Unmodified-Since: {at(-2)}"], 412, None),
    ],
    ids=str,
)
def test_conditions(
    server: Server, method: str, fields: list[str], status: int, part: str | None
) -> None:
    tag = ask(server, "/style.css").get("ETag") or ""
    assert tag.startswith('"')
    filled = [text.replace("{tag}", tag) for text in fields]
    response = ask(server, "/style.css", *filled, method=method)
    if method == "HEAD" and any(text.startswith("Range") for text in fields):
        status, part = 200, None  # ranges are of GET (RFC 9110 section 14.2); Go takes them
    assert response.status == status
    assert response.get("Content-Range") == part
    if status in (200, 206):
        assert response.get("Last-Modified") == at(0)
        assert response.get("Content-Type") == "text/css; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/file", 200),
        # Go answers what has a part `..` with 400, wherever it leads.
        ("/../file", 404),
        ("/..", 404),
        ("/../", 404),
        ("/../foo", 404),
        ("/..\\foo", 404),
        ("/file/a", 404),
        ("/file/a..", 404),
        ("/file/a/..", 404),
        ("/file/a\\..", 404),
        # Go resolves these.
        ("//file", 404),
        # And leads from a file with a slash to the file.
        ("/file/", 404),
        ("/below", 404),  # it has no index; Go shows what is in it
    ],
)
def test_paths(server: Server, path: str, status: int) -> None:
    assert ask(server, path).status == status


def test_the_page_of_a_folder_is_one_of_two_addresses(server: Server) -> None:
    """Go leads from one to the other; here both are answered, as relative links in it hold."""
    assert ask(server, "/index.html").body == ask(server, "/").body
