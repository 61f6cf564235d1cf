"""Bodies much larger than what a worker may keep of them."""

import json
import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.client import Client, head
from tests.server import Server

Start = Callable[..., Server]

pytestmark = pytest.mark.skipif(
    "CORE_BUILD" in os.environ, reason="AddressSanitizer keeps what was freed"
)

BLOCK = bytes(range(256)) * 4096  # 1 MiB
BLOCKS = 128
SIZE = BLOCKS * len(BLOCK)
# Less than a quarter of a body, and more than what a worker keeps of one: body-buffer or
# response-buffer, and the application's own pieces.
GROWTH = 24 << 20


def peak(pid: int) -> int:
    """The most bytes a process ever had resident: proc(5), VmHWM."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024


@pytest.fixture(params=[True, False], ids=["buffered", "streamed"])
def demo(request: pytest.FixtureRequest, server: Start) -> Server:
    return server("poolsrv.demo:application", threads=2, request_buffering=request.param)


def fixed() -> Iterator[bytes]:
    yield head("POST", "/upload", f"Content-Length: {SIZE}")
    for _ in range(BLOCKS):
        yield BLOCK


def chunked() -> Iterator[bytes]:
    yield head("POST", "/upload", "Transfer-Encoding: chunked")
    for _ in range(BLOCKS):
        yield b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("framed", [fixed, chunked])
def test_an_upload_is_not_kept_in_memory(
    demo: Server, framed: Callable[[], Iterator[bytes]]
) -> None:
    (worker,) = demo.workers()
    with Client(demo.address) as client:
        client.get("/hello")
        before = peak(worker)
        for data in framed():
            client.send(data)
        answer = json.loads(client.receive().body)
    digest = sha256()
    for _ in range(BLOCKS):
        digest.update(BLOCK)
    assert answer == {"length": SIZE, "sha256": digest.hexdigest()}
    assert peak(worker) - before < GROWTH


def test_a_response_is_not_kept_in_memory(server: Start) -> None:
    probe = server("tests.apps.probe:app")
    (worker,) = probe.workers()
    with Client(probe.address) as client:
        client.get("/x")
        before = peak(worker)
        # Without chunks, and without a client that keeps them either.
        client.send(head("GET", f"/stream?count={BLOCKS}&size={len(BLOCK)}", version="1.0"))
        received = 0
        while data := client.socket.recv(1 << 20):
            received += len(data)
    assert received > SIZE
    assert peak(worker) - before < GROWTH


def test_a_large_answer_that_nobody_reads_holds_no_thread(server: Start) -> None:
    """A list is sent from where it lies, and a file by the kernel: neither waits."""
    probe = server("tests.apps.probe:app", processes=1, threads=1)
    (probe.log_path.parent / "file.bin").write_bytes(BLOCK * 16)
    with Client(probe.address) as file, Client(probe.address) as echo:
        file.send(head("GET", "/send-file?name=file.bin"))
        echo.send(head("POST", "/echo", f"Content-Length: {16 * len(BLOCK)}"))
        for _ in range(16):
            echo.send(BLOCK)
        probe.wait_until(lambda: probe.metric("poolsrv_connections", state="writing") == 2)
        assert probe.metric("poolsrv_threads_busy") == 0
        assert file.receive().body == BLOCK * 16
        assert echo.receive().body == BLOCK * 16
