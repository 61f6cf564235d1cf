"""A process that the application forks is no worker: each way to fork, as others see it."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client, head
from tests.server import Server

Start = Callable[..., Server]

APP = "tests.apps.forking:app"

# What a child may hold of the server's: what every program inherits.
HARMLESS = ("/dev/null", "/proc/")


def get(server: Server, target: str) -> Any:
    with Client(server.address) as client:
        answer = client.get(target, "Connection: close")
        client.expect_end()
    assert answer.status == 200
    return json.loads(answer.body)


@contextmanager
def held_helper(directory: Path) -> Iterator[None]:
    """While the block runs, helpers of the application wait; then they end."""
    gate = directory / "helper"
    os.mkfifo(gate)
    yield
    os.close(os.open(gate, os.O_WRONLY))


def test_sigterm_ends_a_child_and_its_worker_goes_on(server: Start) -> None:
    running = server(APP, processes=1)
    with Client(running.address) as kept:
        assert kept.get("/hello").status == 200
        idle = len(running.processes())
        for _ in range(20):
            assert get(running, "/terminated") == -15
        # A drain in the child would have handed it to the supervisor a second time.
        kept.send(head("POST", "/hello", "Content-Length: 2"))
        kept.send(b"ab")
        assert kept.receive().status == 200
    running.wait_for_metric(0, "poolsrv_connections")
    assert len(running.processes()) == idle


@pytest.mark.parametrize("way", ["fork", "forkserver", "spawn"])
def test_multiprocessing_works_in_a_view(server: Start, way: str) -> None:
    running = server(APP)
    assert get(running, f"/spawned?{way}") == 0


def test_a_pool_of_processes_ends(server: Start) -> None:
    running = server(APP)
    for _ in range(5):
        assert get(running, "/pool") == [1, 2, 3]


@pytest.mark.parametrize(
    ("way", "status"), [("returns", 0), ("exits", 7), ("fails", 1), ("threaded", 0)]
)
def test_a_child_that_comes_back_ends_with_its_own_status(
    server: Start, way: str, status: int
) -> None:
    running = server(APP, processes=1)
    with Client(running.address) as kept:
        pid = json.loads(kept.get("/hello").body)
        assert json.loads(kept.get(f"/{way}").body) == status
        assert json.loads(kept.get("/hello").body) == pid  # and there was one answer
    assert get(running, "/hello") == pid
    assert ("in the child" in running.log()) == (way == "fails")


@pytest.mark.parametrize(
    ("way", "body"), [("yields", b"one 0 two"), ("closes", b"body"), ("writes", b"5")]
)
def test_a_child_sends_nothing(server: Start, tmp_path: Path, way: str, body: bytes) -> None:
    running = server(APP, processes=1)
    with Client(running.address) as kept:
        assert kept.get(f"/{way}").body == body
        assert kept.get("/hello").status == 200
    if way == "closes":
        assert (tmp_path / "closed").read_text() == "0"


def test_a_child_takes_nothing_of_a_streamed_body(server: Start, tmp_path: Path) -> None:
    running = server(APP, processes=1, request_buffering=False)
    with Client(running.address) as client:
        client.send(head("POST", "/reads", "Content-Length: 4"))
        running.wait_until((tmp_path / "tried").exists)
        client.send(b"body")
        assert json.loads(client.receive().body) == [5, "body"]


def test_a_child_does_not_wait_for_a_thread_that_it_has_not(server: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    running = server(APP, processes=1, request_buffering=False)
    with Client(running.address) as client:
        client.send(head("POST", "/reads-beside", "Content-Length: 4"))
        running.wait_until(
            lambda: [row["state"] for row in running.status()["running"]] == ["reading"]
        )
        os.close(os.open(tmp_path / "go", os.O_WRONLY))
        running.wait_until((tmp_path / "tried").exists)
        client.send(b"body")
        assert json.loads(client.receive().body) == [5, "body"]


def test_a_child_has_default_signals_and_nothing_of_the_servers(server: Start) -> None:
    running = server(APP, processes=2, access_log="-")
    kept = [Client(running.address) for _ in range(8)]
    for client in kept:
        client.send(b"GET / HT")  # held by a worker, or by the supervisor
    held, signals, wakeup = get(running, "/sees")
    log = str(running.log_path)
    own = [name for name in held if name != log and not name.startswith(HARMLESS)]
    assert [name.partition("[")[0] for name in own] == ["pipe:"], held
    assert signals == {"SigBlk": [], "SigIgn": [], "SigCgt": [2]}  # KeyboardInterrupt
    assert wakeup == -1
    for client in kept:
        client.close()


def test_a_program_has_default_signals_and_nothing_of_the_servers(server: Start) -> None:
    running = server(APP, processes=2, access_log="-")
    held, signals, _ = get(running, "/program")
    log = str(running.log_path)
    own = [name for name in held if name != log and not name.startswith(HARMLESS)]
    assert [name.partition("[")[0] for name in own] == ["pipe:"], held
    assert signals == {"SigBlk": [], "SigIgn": [], "SigCgt": [2]}


@pytest.mark.parametrize("way", ["helped", "daemon"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_helper_holds_no_connection_and_no_server(
    server: Start, tmp_path: Path, way: str, version: str
) -> None:
    running = server(APP, processes=1, threads=2)
    kept = Client(running.address)
    assert kept.get("/hello").status == 200
    with held_helper(tmp_path):
        with Client(running.address) as client:
            assert client.get(f"/{way}", "Connection: close", version=version).status == 200
            client.expect_end()
        assert kept.get("/hello").status == 200
        running.terminate()
        assert running.wait() == 0
        kept.expect_end()
    kept.close()
    running.wait_until(lambda: not running.living())


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize(
    "moment",
    [
        "import",
        pytest.param(
            "exit",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12), reason="Python itself forks no more at its end"
            ),
        ),
    ],
)
def test_a_child_forked_outside_of_requests_comes_to_nothing(
    server: Start, tmp_path: Path, moment: str, preload: bool
) -> None:
    running = server(APP, processes=2, preload=preload, env={"FORK_AT": moment})
    for _ in range(10):
        assert get(running, "/hello") in running.workers()
    if moment == "exit":
        running.stop()
    pairs = [line.split() for line in (tmp_path / moment).read_text().splitlines()]
    parents, children = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    assert parents
    assert not parents & children
    running.wait_until(lambda: not children & {str(other.pid) for other in running.living()})


@pytest.mark.parametrize("preload", [True, False])
def test_a_helper_started_at_import_has_nothing_of_the_servers(
    server: Start, tmp_path: Path, preload: bool
) -> None:
    with held_helper(tmp_path):
        running = server(APP, processes=1, preload=preload, env={"FORK_AT": "helper"})
        running.wait_until((tmp_path / "seen").exists)
        held, signals = json.loads((tmp_path / "seen").read_text())
        log = str(running.log_path)
        assert [name for name in held if name != log and not name.startswith(HARMLESS)] == []
        assert signals == {"SigBlk": [], "SigIgn": [], "SigCgt": [2]}
        assert get(running, "/hello")
        running.terminate()
        assert running.wait() == 0
    running.wait_until(lambda: not running.living())


@pytest.mark.parametrize("soft", [64, 1024, 3000])
def test_many_connections_leave_the_application_its_numbers(server: Start, soft: int) -> None:
    """And its limit, to itself, to its children and to the programs that it starts."""
    running = server(
        APP, processes=1, through=["prlimit", f"--nofile={soft}:4096"], header_timeout="60s"
    )
    assert get(running, "/limit") == [soft, soft]
    clients = [Client(running.address) for _ in range(1200)]
    for client in clients:
        client.send(b"GET / HT")  # the worker holds it
    (pid,) = running.workers()
    running.wait_until(lambda: len(running.descriptors(pid)) > 1200)
    number, ready = get(running, "/lowest")
    assert number < 512
    assert ready == 1
    for _ in range(5):
        assert get(running, "/limit") == [soft, soft]
    for client in clients:
        client.close()
    running.wait_until(lambda: len(running.descriptors(pid)) < 100)
    assert get(running, "/limit") == [soft, soft]
