"""What outlives its worker: connections whose next request no thread has begun to read."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from poolsrv.supervisor.keepers import Keepers
from tests.apps.gate import Gate
from tests.client import Client, Truncated, head
from tests.server import Server

PROBE = "tests.apps.probe:app"
KILLED = "worker was ended by|worker exited with"
Start = Callable[..., Server]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path)) as made:
        yield made


def kept_clients(stack: ExitStack, server: Server, count: int) -> list[Client]:
    """Connections that have had an answer."""
    clients = [stack.enter_context(Client(server.address)) for _ in range(count)]
    for client in clients:
        client.send(head("GET", "/x"))
    assert [client.receive().status for client in clients] == [200] * count
    return clients


@pytest.mark.parametrize("end", ["status=0", "signal=SIGKILL", "signal=SIGSEGV"])
def test_however_a_worker_ends_its_idle_connections_live_on(server: Start, end: str) -> None:
    # A second thread might have begun another request just then.
    probe = server(PROBE, processes=1, threads=1, allow_errors=KILLED)
    with ExitStack() as stack:
        kept = kept_clients(stack, probe, 8)
        last = stack.enter_context(Client(probe.address))
        last.send(head("GET", f"/die?{end}"))
        for client in kept:
            client.send(head("GET", "/x"))
        assert [client.receive().status for client in kept] == [200] * 8
        assert last.receive().status == 502
        last.expect_end()
    assert probe.metric("poolsrv_connections_closed_total", reason="worker_ended") == 1
    assert probe.metric("poolsrv_requests_refused_total", status="502") == 1


def test_what_waits_for_a_thread_is_served_by_the_next_worker(server: Start, gate: Gate) -> None:
    """More of them than one block of places holds."""
    probe = server(PROBE, processes=1, threads=2, allow_errors=KILLED)
    with ExitStack() as stack:
        kept = kept_clients(stack, probe, 300)
        pinned = kept[:2]
        for client in pinned:
            client.send(head("GET", "/hold?gate=gate"))
        probe.wait_until(lambda: len(gate.arrivals()) == 2)
        for client in kept[2:]:
            client.send(head("GET", "/x"))
        probe.kill(gate.arrivals()[0][0])
        assert [client.receive().status for client in kept[2:]] == [200] * 298
        assert [client.receive().status for client in pinned] == [502] * 2


def test_a_request_that_has_begun_is_never_begun_again(
    server: Start, gate: Gate, tmp_path: Path
) -> None:
    """Nor one that came in the same piece, and lies in the memory of the worker."""
    log = tmp_path / "access.log"
    probe = server(PROBE, processes=1, threads=1, access_log=log, allow_errors=KILLED)
    with ExitStack() as stack:
        (client,) = kept_clients(stack, probe, 1)
        client.send(head("HEAD", "/hold?gate=gate") + head("GET", "/x"))
        probe.wait_until(gate.arrivals)
        probe.kill(gate.arrivals()[0][0])
        assert client.receive(to_head=True).status == 502
        client.expect_end()
        assert kept_clients(stack, probe, 1)
    assert len(gate.arrivals()) == 1
    line = next(line for line in log.read_text().splitlines() if "/hold" in line)
    assert re.search(r'^127.0.0.1 .* "HEAD /hold HTTP/1.1" 502 0 .* "its worker has ended"$', line)
    (lost,) = re.findall(r"was lost with it: HEAD /hold id=(\w+)", probe.log())
    assert f" {lost} " in line


def test_an_answer_that_has_begun_is_cut(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1, allow_errors=KILLED)
    with ExitStack() as stack:
        (client,) = kept_clients(stack, probe, 1)
        client.send(head("GET", "/hold-inside?gate=gate"))
        probe.wait_until(gate.arrivals)
        probe.kill(gate.arrivals()[0][0])
        with pytest.raises(Truncated) as cut:
            client.receive()
        assert cut.value.response.body.startswith(b"one")


@pytest.mark.parametrize(
    "part",
    [
        b"GET /x HTTP/1.1\r\nHost: a\r\nX-Text: ",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
    ],
)
def test_what_has_come_in_part_is_answered_and_its_rest_is_no_request(
    server: Start, part: bytes
) -> None:
    probe = server(PROBE, processes=1, threads=1, allow_errors=KILLED)
    with ExitStack() as stack:
        (client,) = kept_clients(stack, probe, 1)
        client.send(part)
        probe.wait_for_metric(1, "poolsrv_connections", state="reading")
        probe.kill(probe.workers()[0])
        assert client.receive().status == 502
        client.send(head("GET", "/x"))
        client.expect_end()


def test_a_client_that_has_asked_for_nothing_is_told_nothing(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=1, allow_errors=KILLED)
    with ExitStack() as stack:
        kept = kept_clients(stack, probe, 3)
        (worker,) = probe.workers()
        probe.kill(worker)
        probe.wait_until(lambda: probe.workers() not in ([], [worker]))
        assert [client.get("/x").status for client in kept] == [200] * 3


def test_what_the_application_had_locked_is_free_for_its_next_process(
    server: Start, tmp_path: Path
) -> None:
    locking = server(
        "tests.apps.locking:app", processes=1, threads=1, preload=False, allow_errors=KILLED
    )
    with ExitStack() as stack:
        (client,) = kept_clients(stack, locking, 1)
        (worker,) = locking.workers()
        assert (tmp_path / "locked").read_text() == str(worker)
        locking.kill(worker)
        assert client.get("/").status == 200


# Whose keeper does not do its work


def keeper_of(server: Server) -> int:
    (keeper,) = server.named("pool:keeper-")
    return keeper


def test_a_keeper_that_is_stopped_goes_on_when_its_worker_ends(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=2, allow_errors=KILLED)
    with ExitStack() as stack:
        kept = kept_clients(stack, probe, 5)
        kept[0].send(head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        keeper = keeper_of(probe)
        probe.kill(keeper, signal.SIGSTOP)
        probe.kill(gate.arrivals()[0][0])
        for client in kept[1:]:
            client.send(head("GET", "/x"))
        assert [client.receive().status for client in kept] == [502, 200, 200, 200, 200]
        probe.wait_until(lambda: keeper not in [one.pid for one in probe.processes()])


def test_a_worker_that_is_stopped_with_its_keeper_can_be_told_to_end(server: Start) -> None:
    """`serving` allows less than --graceful-timeout for it."""
    probe = server(PROBE, processes=1, threads=2)
    with ExitStack() as stack:
        kept_clients(stack, probe, 2)
        probe.kill(keeper_of(probe), signal.SIGSTOP)
        (worker,) = probe.workers()
        probe.kill(worker, signal.SIGSTOP)


def test_without_its_keeper_a_worker_serves_on(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=2, allow_errors=KILLED)
    with ExitStack() as stack:
        kept = kept_clients(stack, probe, 3)
        probe.kill(keeper_of(probe))
        assert [client.get("/x").status for client in kept] == [200] * 3
        (worker,) = probe.workers()
        probe.kill(worker)
        for client in kept:
            client.expect_end()
        probe.wait_until(lambda: probe.workers() not in ([], [worker]))
        assert kept_clients(stack, probe, 1)


def test_what_outlasts_the_grace_is_answered(server: Start, gate: Gate) -> None:
    probe = server(
        PROBE, processes=1, threads=2, graceful_timeout="0.5s", allow_errors=f"{KILLED}|finish"
    )
    with ExitStack() as stack:
        (client,) = kept_clients(stack, probe, 1)
        client.send(head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        assert probe.stop() == 0
        assert client.receive().status == 502


class Host:
    """As far as Keepers asks."""

    zombies = False
    failed = False

    def __init__(self) -> None:
        self.now = 0.0
        self.hears: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, hear: Callable[[], None]) -> None:
        self.hears[fd] = hear

    def unwatch(self, fd: int) -> None:
        del self.hears[fd]


def test_a_keeper_that_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    keepers = Keepers(host, {})  # type: ignore[arg-type]
    with subprocess.Popen(["sleep", "60"]) as child, subprocess.Popen(["sh", "-c", "exit"]) as gone:
        gone.wait()
        for other in 0, 1, gone.pid:  # no child of ours
            keepers.left(other)
        assert not keepers.some_are_left
        keepers.left(child.pid)
        host.now = keepers.deadline() or 0.0
        keepers.tick()
        assert child.wait() == -signal.SIGKILL
        assert keepers.deadline() is None
        assert "did not end: killed" in caplog.text
        (hear,) = host.hears.values()
        hear()
        assert not host.hears
        assert not keepers.some_are_left
