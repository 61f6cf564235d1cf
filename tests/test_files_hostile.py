"""Files, by clients that look for a way out and folders that change under the server's hands."""

import contextlib
import ctypes
import os
import random
import socket
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.client import Client, Response, Truncated, head
from tests.confined import OPENAT2
from tests.server import Server, serving
from tests.test_files import parts
from tests.test_privileges import as_root

SECRET = b"nobody outside may see this"

# Through the kernel's own resolution, and part by part where it has none.
WAYS = {"openat2": [], "walk": [sys.executable, "-m", "tests.confined", str(OPENAT2), "1"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "outer" / "static"
    (made / "in").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"a")
    (made / "in" / "a.txt").write_bytes(b"a")
    (made / "\u00e9").mkdir()
    (made / "back\\slash.txt").write_bytes(b"a")
    (made.parent / "secret").write_bytes(SECRET)
    (made.parent / "static-too").mkdir()
    (made.parent / "static-too" / "secret").write_bytes(SECRET)
    return made


@contextmanager
def mounted(folder: Path, directory: Path, **options: object) -> Iterator[Server]:
    usual = {"processes": 1, "threads": 2, "mount": f"/static={folder}/"}
    with serving("tests.apps.mounted:root", directory, **usual | options) as made:
        yield made


def ask(client: Client, path: str, *fields: str, method: str = "GET") -> Response:
    client.send(head(method, f"/static{path}", *fields))
    return client.receive(to_head=method == "HEAD")


# Names


PIECES = [
    *(
        "/",
        "//",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%255c",
        "%252f",
        ";",
        "/;/",
        "%3b",
        "%00",
        "%0a",
        "%20",
    ),
    *("..", ".", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "..%00", "...", "..;", "%2e", "~", "%7e"),
    # Dots and slashes, written longer than UTF-8 allows, or wider than ASCII has them.
    *("%c0%ae%c0%ae", "%c0%af", "%e0%80%af", "%f0%80%80%af", "%c1%9c", "%ef%bc%8f", "%uff0e"),
    *["in/a.txt"] * 3,
    *("secret", "outer", "static", "static-too", "in", "a.txt", "%C3%A9", "x" * 255, "x" * 256),
    *("proc/self/fd", "dev/fd/0", "etc/passwd", "C:", "file:///etc/passwd", "$HOME", "a" * 5000),
]


@pytest.mark.parametrize("way", WAYS)
def test_no_name_leads_out(folder: Path, tmp_path: Path, way: str) -> None:
    chance = random.Random(20261126)
    seen: Counter[int] = Counter()
    with mounted(folder, tmp_path, through=WAYS[way]) as server, ExitStack() as stack:
        client = stack.enter_context(Client(server.address))
        for _ in range(3000):
            count = chance.choice([1, 1, 2, 3, 4, 5, 6, 7])
            target = "/" + "".join(chance.choice(PIECES) for _ in range(count))
            try:
                response = ask(client, target)
            except (Truncated, ConnectionResetError):
                client = stack.enter_context(Client(server.address))
                continue
            seen[response.status] += 1
            assert response.status in (200, 301, 400, 404, 414), target
            assert SECRET not in response.body, target
            assert b"root:" not in response.body, target
            if response.status == 200:
                assert response.body == b"a", target
            if response.get("Connection") == "close":
                client = stack.enter_context(Client(server.address))
        assert ask(client, "/back%5Cslash.txt").status == 200  # a letter like others
    assert seen[200] > 10
    assert seen[404] > 1000


def test_the_longest_names(folder: Path, tmp_path: Path) -> None:
    name = "n" * 255
    deep = folder
    for _ in range(12):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    (deep / "a.txt").write_bytes(b"deep")
    (folder / name).write_bytes(b"long")
    with (
        mounted(folder, tmp_path, limit_request_line=65535) as server,
        Client(server.address) as client,
    ):
        assert ask(client, f"/{name}").body == b"long"
        assert ask(client, f"/{'%6e' * 255}").body == b"long"
        assert ask(client, f"/{deep.relative_to(folder)}/a.txt").body == b"deep"
        assert ask(client, f"/{name}n").status == 404
        assert ask(client, f"/{'x/' * 2100}a").status == 404  # longer than PATH_MAX
        assert ask(client, f"/{'x/' * 2048}").status == 404
        assert ask(client, f"/{'%78' * 20000}").status == 404
        assert ask(client, "/a.txt").body == b"a"


# What is no file


def test_what_is_no_regular_file(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "fifo")
    with contextlib.suppress(PermissionError):
        os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(folder / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (folder / "proc").symlink_to("/proc/self/environ")
    (folder / "fd").symlink_to("/proc/self/fd")
    (folder / "loop").symlink_to("loop")
    (folder / "nothing").symlink_to("none")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        with mounted(folder, tmp_path) as server, Client(server.address) as client:
            for name in ("fifo", "null", "zero", "socket", "proc", "fd/0", "loop", "nothing", "in"):
                assert ask(client, f"/{name}").status == 404, name
                assert ask(client, f"/{name}/").status == 404, name
            assert ask(client, "/a.txt").body == b"a"


def test_what_the_worker_may_not_read(folder: Path, tmp_path: Path) -> None:
    through = as_root()
    for path in [tmp_path, *tmp_path.parents]:
        if "pytest" in str(path):  # of these there are as many as workers of pytest make
            path.chmod(0o755)
    (folder / "closed.txt").write_bytes(SECRET)
    (folder / "closed.txt").chmod(0o600)
    (folder / "shut").mkdir(0o700)
    (folder / "shut" / "a.txt").write_bytes(SECRET)
    (folder / "listless").mkdir(0o711)
    (folder / "listless" / "a.txt").write_bytes(b"a")
    (folder / "listless" / "a.txt").chmod(0o644)
    with (
        mounted(folder, tmp_path, user="nobody", through=through) as server,
        Client(server.address) as client,
    ):
        for name in ("closed.txt", "shut/a.txt", "shut", "shut/", "listless"):
            response = ask(client, f"/{name}")
            assert (response.status, response.body) == (404, b"404 Not Found\n"), name
        assert ask(client, "/listless/a.txt").body == b"a"


# While it changes


_RENAME_EXCHANGE = 2


def exchange(one: Path, other: Path) -> None:
    """Two names at once: there is no moment at which either is missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), _RENAME_EXCHANGE)
    if done:
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.mark.parametrize("way", WAYS)
def test_a_link_that_takes_the_place_of_a_folder(folder: Path, tmp_path: Path, way: str) -> None:
    """In the middle of a path, over and over: what is opened is never outside."""
    (folder / "in" / "secret").write_bytes(b"inside")
    (folder / "link").symlink_to(folder.parent)  # which has a file `secret`, too
    (folder / "in2").mkdir()
    (folder / "in2" / "secret").write_bytes(b"inside")
    (folder / "link2").symlink_to("../../outer")
    over = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not over.is_set():
            exchange(folder / "in", folder / "link")
            exchange(folder / "in2", folder / "link2")
            swaps += 1

    with mounted(folder, tmp_path, threads=4, through=WAYS[way]) as server:
        swapper = threading.Thread(target=swap)
        swapper.start()
        seen: Counter[bytes] = Counter()
        try:
            with Client(server.address) as client:
                batch = head("GET", "/static/in/secret") + head("GET", "/static/in2/secret")
                for _ in range(200):
                    client.send(batch * 50)
                    for _ in range(100):
                        response = client.receive()
                        assert response.status in (200, 404)
                        seen[response.body] += 1
        finally:
            over.set()
            swapper.join()
        assert set(seen) == {b"inside", b"404 Not Found\n"}, seen
        assert swaps > 100


def test_a_file_that_grows_is_sent_as_long_as_it_was(folder: Path, tmp_path: Path) -> None:
    path = folder / "log.bin"
    path.write_bytes(b"x" * (8 << 20))
    with mounted(folder, tmp_path) as server, Client(server.address) as client:
        client.send(head("GET", "/static/log.bin") + head("GET", "/static/a.txt"))
        client.socket.recv(1, socket.MSG_PEEK)
        with path.open("ab") as file:
            file.write(b"y" * (8 << 20))
        assert client.receive().body == b"x" * (8 << 20)
        assert client.receive().body == b"a"
        assert ask(client, "/log.bin", method="HEAD").get("Content-Length") == str(16 << 20)


def test_files_beyond_what_32_bits_count(folder: Path, tmp_path: Path) -> None:
    size = 9 * 10**9 + 7
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(size)
        for at, text in ((5 * 10**9, b"in the middle"), (size - 7, b"the end")):
            file.seek(at)
            file.write(text)
    with mounted(folder, tmp_path) as server, Client(server.address) as client:
        assert ask(client, "/huge.bin", method="HEAD").get("Content-Length") == str(size)
        response = ask(client, "/huge.bin", "Range: bytes=5000000000-5000000012")
        assert response.body == b"in the middle"
        assert response.get("Content-Range") == f"bytes 5000000000-5000000012/{size}"
        assert ask(client, "/huge.bin", "Range: bytes=-7").body == b"the end"
        assert ask(client, "/huge.bin", f"Range: bytes={size - 7}-").body == b"the end"
        response = ask(client, "/huge.bin", "Range: bytes=5000000003-5000000005,-7")
        assert [data for _, data in parts(response)] == [b"the", b"the end"]
        # As much as that is on its way, and can be broken off.
        client.send(head("GET", "/static/huge.bin", "Range: bytes=4294967290-"))
        assert client.socket.recv(4) == b"HTTP"
        client.reset()
        with Client(server.address) as other:
            assert ask(other, "/a.txt").body == b"a"


# Many at a time


def test_many_slow_readers(folder: Path, tmp_path: Path) -> None:
    """None holds a thread, and what was opened for them is closed when they leave."""
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(64 << 20)
    with mounted(folder, tmp_path) as server:
        (worker,) = server.workers()
        with ExitStack() as stack:
            for _ in range(200):
                slow = stack.enter_context(Client(server.address))
                slow.send(head("GET", "/static/huge.bin"))
            path = str(folder / "huge.bin")
            server.wait_until(lambda: server.descriptors(worker).count(path) == 200, 20)
            with Client(server.address) as client:
                for _ in range(20):
                    assert ask(client, "/a.txt").body == b"a"
                client.send(head("GET", "/page"))
                assert client.receive().status == 200
            assert server.metric("poolsrv_threads_busy") == 0
        server.wait_until(lambda: path not in server.descriptors(worker), 20)


def test_without_a_free_descriptor(folder: Path, tmp_path: Path) -> None:
    """Clients are told, and when others have left all is as before."""
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(64 << 20)
    limited = ["prlimit", "--nofile=128:128"]
    with mounted(folder, tmp_path, through=limited, allow_errors="descriptor") as server:
        statuses: Counter[str] = Counter()
        with ExitStack() as stack:
            for _ in range(100):
                slow = stack.enter_context(Client(server.address, timeout=2))
                try:
                    slow.send(head("GET", "/static/huge.bin"))
                    statuses[slow.socket.recv(12).decode()] += 1
                except (TimeoutError, ConnectionResetError):
                    statuses["none"] += 1
                    break
                if statuses["HTTP/1.1 503"] > 3:
                    break
            assert statuses["HTTP/1.1 200"] > 10, statuses
            assert statuses["HTTP/1.1 503"] or statuses["none"], statuses

        def is_back() -> bool:
            with Client(server.address) as client:
                return ask(client, "/a.txt").body == b"a"

        server.wait_until(is_back, 20)


def test_a_bomb_of_ranges(folder: Path, tmp_path: Path) -> None:
    """As many as a head holds: never more bytes than the file has, and never much work."""
    data = random.Random(1).randbytes(1 << 20)
    (folder / "data.bin").write_bytes(data)
    fields = [
        ",".join(f"{i}-" for i in range(1000)),
        ",".join("0-" for _ in range(2000)),
        ",".join(f"-{i + 1}" for i in range(1000)),
        ",".join(f"{i * 1000}-{i * 1000}" for i in range(500)),
        ",".join(f"{i * 100000}-{i * 100000 + 90000}" for i in range(9)),
        "," * 7000 + "0-1",
        "0-0," * 1500 + "99999999-",
        "0-" + "9" * 7000,
    ]
    with mounted(folder, tmp_path) as server, Client(server.address) as client:
        for value in fields:
            response = ask(client, "/data.bin", f"Range: bytes={value}")
            assert response.status in (200, 206), value[:40]
            assert len(response.body) <= len(data) + 2000
        response = ask(client, "/data.bin", *["Range: bytes=0-1"] * 2)
        assert response.status == 200
        tags = ", ".join(f'"{i}"' for i in range(700))
        assert ask(client, "/data.bin", f"If-None-Match: {tags}").status == 200
        codings = ", ".join(f"x{i};q=0.{i % 10}" for i in range(500))
        assert ask(client, "/data.bin", f"Accept-Encoding: {codings}").status == 200
