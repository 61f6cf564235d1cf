"""What the exporter tells of a real server with real requests inside."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import Server


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
