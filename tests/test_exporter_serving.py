"""What the exporter tells of a real server with real requests inside."""

import signal
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import Server

pytestmark = pytest.mark.once


def test_a_running_request_is_named(server: Callable[..., Server], tmp_path: Path) -> None:
    running = server("tests.apps.probe:app", processes=2, threads=2)
    with closing(Gate(tmp_path)) as gate, Client(running.address) as client:
        client.send(head("GET", "/hold?gate=gate"))
        running.wait_until(gate.arrivals)
        ((pid, _),) = gate.arrivals()
        status = running.status()
        (request,) = status["running"]
        assert (request["method"], request["path"]) == ("GET", "/hold")
        assert (request["state"], request["pid"]) == ("application", pid)
        assert request["age_seconds"] >= request["queue_seconds"] >= 0
        assert request["request_id"]
        assert (status["threads"]["busy"], status["threads"]["total"]) == (1, 4)
        assert [worker["busy"] for worker in status["workers"] if worker["pid"] == pid] == [1]
        assert b">/hold<" in running.admin("/")
        before = running.metrics()["poolsrv_request_oldest_seconds", frozenset()]
        running.wait_until(lambda: running.metric("poolsrv_request_oldest_seconds") > before)
        gate.release(1)
        assert client.receive().status == 200
    running.wait_until(lambda: running.status()["running"] == [])


def test_busy_time_grows_while_a_request_runs(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    running = server("tests.apps.probe:app", processes=1, threads=1)
    busy = "poolsrv_thread_busy_seconds_total"
    with closing(Gate(tmp_path)) as gate, Client(running.address) as client:
        client.send(head("GET", "/hold?gate=gate"))
        running.wait_until(gate.arrivals)
        seen = [running.metric(busy)]
        for _ in range(3):
            seen.append(
                running.wait_until(lambda: (now := running.metric(busy)) > seen[-1] and now)
            )
        gate.release(1)
        assert client.receive().status == 200
    assert running.metric(busy) >= seen[-1]


def test_requests_are_counted(server: Callable[..., Server]) -> None:
    running = server(processes=2, threads=2)
    with Client(running.address) as client:
        for _ in range(10):
            assert client.get("/").status == 200

    def counted() -> bool:
        return running.metric("poolsrv_requests_total", status_class="2xx") == 10

    running.wait_until(counted)
    assert running.metric("poolsrv_request_duration_seconds_count") == 10
    assert running.metric("poolsrv_request_queue_seconds_count") == 10
    for part in ("application", "write"):
        assert running.metric(f"poolsrv_request_{part}_seconds_total") > 0
    assert running.metric("poolsrv_sent_bytes_total") >= 10 * len("hello world\n")
    assert running.metric("poolsrv_received_bytes_total") == 10 * len(head("GET", "/"))
    assert running.metric("poolsrv_connections_accepted_total") == 1
    assert running.metric("poolsrv_worker_up") == 2
    assert running.admin("/readyz") == b"2 of 2 workers are ready\n"


def test_an_idle_connection_is_held_somewhere(server: Callable[..., Server]) -> None:
    running = server(processes=2, threads=2)
    with Client(running.address) as client:
        assert client.get("/").status == 200

        def held() -> bool:
            idle = ("parked", "idle")
            return sum(running.metric("poolsrv_connections", state=state) for state in idle) == 1

        running.wait_until(held)
    running.wait_until(lambda: running.metric("poolsrv_connections") == 0)


def probe(server: Server, path: str) -> int:
    """The status of a probe."""
    try:
        with urllib.request.urlopen(server.admin_url + path, timeout=10) as response:
            status: int = response.status
    except urllib.error.HTTPError as error:
        return error.code
    return status


def test_probes_see_that_the_supervisor_is_stopped(server: Callable[..., Server]) -> None:
    running = server(processes=2)
    assert [probe(running, path) for path in ("/livez", "/readyz")] == [200, 200]
    running.kill(running.process.pid, signal.SIGSTOP)
    try:
        assert [probe(running, path) for path in ("/livez", "/readyz")] == [503, 503]
    finally:
        running.kill(running.process.pid, signal.SIGCONT)
    running.wait_until(lambda: probe(running, "/readyz") == 200)
    assert probe(running, "/livez") == 200


def test_a_server_whose_workers_are_all_stopped_is_not_ready(
    server: Callable[..., Server],
) -> None:
    running = server(processes=2)
    one, other = running.workers()
    try:
        running.kill(one, signal.SIGSTOP)
        assert running.wait_until(lambda: running.admin("/readyz") == b"1 of 2 workers are ready\n")
        running.kill(other, signal.SIGSTOP)
        running.wait_until(lambda: probe(running, "/readyz") == 503)
        assert probe(running, "/livez") == 200
    finally:
        for worker in (one, other):
            running.kill(worker, signal.SIGCONT)
    running.wait_until(lambda: probe(running, "/readyz") == 200)


def test_the_admin_address_may_be_a_unix_socket(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"
    running = server(admin=f"unix:{path}")
    assert running.printed("status") == [f"unix:{path}/"]
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
