"""Every allocation that the core asks Python for fails in turn.

Those that it asks libc for fail in tests/c/test_allocation.c.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.apps import starved
from tests.client import Client, Truncated
from tests.server import ROOT, Server

Start = Callable[..., Server]

CHUNKS = "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n4\r\n\ncd\n\r\n1\r\ne\r\n0"
# Paths of tests.apps.starved: the answer, and what the request has more than its head.
REQUESTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "/list": (b"one two", ()),
    "/pieces": (b"one two", ("A-Field: of no known name", f"X-{'y' * 300}: z")),
    "/closing": (b"one two three", ("Cookie: a=b", "Cookie: c=d")),
    "/write": (b"one two three", ("X-Field: a", "X-Field: b")),
    "/large": (starved.LARGE, ()),
    "/file": (starved.FILE.read_bytes(), ()),
    "/no-file": (b"of no file", ()),
    "/body": (b"ab\ncd\ne", (CHUNKS,)),
}
# CPython's own caches grow too, but less and less; a leak grows with each sweep.
SWEEPS = 200
# After so many rounds without a failure, none is to come.
CLEAN = 20


def test_constructors() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.constructors"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout


class Starving:
    """A client whose connection may be closed at any time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client = Client(server.address)

    def get(self, target: str, *fields: str) -> bytes | None:
        """The body of a 200; None for a 500 and for an answer that was cut off."""
        try:
            response = self._client.get(target, *fields)
        except (Truncated, BrokenPipeError):
            self.close()
            self._client = Client(self._server.address)
            return None
        assert response.status in (200, 500)
        if response.get("Connection") == "close":
            self._client.expect_end()
            self.close()
            self._client = Client(self._server.address)
        return response.body if response.status == 200 else None

    def close(self) -> None:
        self._client.close()


def sweep(client: Starving, path: str, count: int) -> int:
    """How many rounds of two requests it takes until nothing fails."""
    answer, fields = REQUESTS[path]
    clean = 0
    for at in itertools.count():
        # Fails while this answers, or when the next is made ready for the application.
        got = client.get(f"{path}?at={at}&count={count}", *fields), client.get(path, *fields)
        assert set(got) <= {answer, None}
        clean = clean + 1 if None not in got else 0
        if clean == CLEAN:
            return at + 1 - CLEAN
    raise AssertionError("unreachable")


def growth(client: Starving, path: str, count: int) -> int:
    """How many objects of the worker's are more after a sweep."""
    before = client.get("/living")
    sweep(client, path, count)
    after = client.get("/living")
    assert before is not None
    assert after is not None
    return int(after) - int(before)


@pytest.mark.parametrize("count", [1, 40], ids=["one-fails", "many-fail"])
@pytest.mark.parametrize("path", REQUESTS)
def test_requests(server: Start, path: str, count: int) -> None:
    starving = server(
        "tests.apps.starved:app", processes=1, threads=1, allow_errors="the application failed"
    )
    workers = starving.workers()
    with closing(Starving(starving)) as client:
        assert sweep(client, path, count) > 0
        held = starving.descriptors(*workers)
        assert any(growth(client, path, count) <= 0 for _ in range(SWEEPS)), "objects leak"
    assert len(starving.descriptors(*workers)) <= len(held)
    assert starving.workers() == workers
