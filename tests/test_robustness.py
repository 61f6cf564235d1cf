"""What the server survives: killed processes, stuck requests, crowds, garbage."""

import os
import random
import re
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.apps.gate import Gate
from tests.client import Client, Response, Truncated, head
from tests.server import Metrics, Server, run_to_end

PROBE = "tests.apps.probe:app"
KILLED = "worker was ended by|worker exited with"
HELD = head("GET", "/hold?gate=gate")
Start = Callable[..., Server]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path)) as made:
        yield made


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for some thousand connections, here and in the servers started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def serves(server: Server, target: str = "/x") -> Response:
    """One request on a connection of its own."""
    with Client(server.address) as client:
        response = client.get(target)
    assert response.status == 200
    return response


def held_requests(stack: ExitStack, server: Server, gate: Gate, count: int) -> list[Client]:
    """So many requests that are inside the application now, in the order of gate.arrivals()."""
    clients = []
    for _ in range(count):
        client = stack.enter_context(Client(server.address))
        client.send(HELD)
        clients.append(client)
        server.wait_until(lambda: len(gate.arrivals()) == len(clients))
    return clients


def replaced(server: Server, *gone: int) -> bool:
    """There are as many ready workers as there were, and none of these."""
    workers = server.workers()
    return len(workers) == len(server.status()["workers"]) and not set(workers) & set(gone)


# A thread that does not come back


@pytest.mark.parametrize("threads", [1, 4])
def test_no_request_waits_for_a_pinned_thread(server: Start, gate: Gate, threads: int) -> None:
    probe = server(PROBE, processes=2, threads=threads)
    with ExitStack() as stack:
        kept = [stack.enter_context(Client(probe.address)) for _ in range(16)]
        for client in kept:
            assert client.get("/x").status == 200
        (pinned,) = held_requests(stack, probe, gate, 1)
        for number in range(200):
            assert kept[number % 16].get("/x").status == 200
            serves(probe)
        for client in kept:
            client.send(head("GET", "/x"))
        for client in kept:
            assert client.receive().status == 200
        gate.release(1)
        assert pinned.receive().status == 200
    assert len(gate.arrivals()) == 1


def test_every_thread_but_one_is_pinned(server: Start, gate: Gate) -> None:
    """Seven of 2 x 4: whichever worker has the last free thread gets the work."""
    probe = server(PROBE, processes=2, threads=4)
    with ExitStack() as stack:
        kept = [stack.enter_context(Client(probe.address)) for _ in range(8)]
        for client in kept:
            assert client.get("/x").status == 200
        pinned = held_requests(stack, probe, gate, 7)
        for number in range(100):
            assert kept[number % 8].get("/x").status == 200
            serves(probe)
        gate.release(7)
        assert [client.receive().status for client in pinned] == [200] * 7


def test_what_waits_is_served_in_the_order_it_came(
    server: Start, gate: Gate, tmp_path: Path
) -> None:
    probe = server(PROBE, processes=1, threads=1)
    with ExitStack() as stack:
        held_requests(stack, probe, gate, 1)
        waiting = []
        for number in range(8):
            client = stack.enter_context(Client(probe.address))
            client.send(head("GET", f"/record?name=order&line={number}"))
            waiting.append(client)
            probe.wait_for_metric(len(waiting), "poolsrv_queue_length")
        gate.release(1)
        assert [client.receive().body for client in waiting] == [b"recorded"] * 8
    assert (tmp_path / "order").read_text().split() == [str(number) for number in range(8)]


def long_before_short(
    stack: ExitStack, probe: Server, gate: Gate, long: bytes = HELD
) -> list[Client]:
    """One thread, and requests as they came: in it, waiting, waiting and long, waiting.

    That the third is long is known: one like it held the thread before, for as
    long as a look at the metrics takes. A thousand such may overtake it.
    """
    known = stack.enter_context(Client(probe.address))
    known.send(long)
    probe.wait_until(lambda: len(gate.arrivals()) == 1)
    assert probe.metric("poolsrv_queue_length") == 0
    gate.release(1)
    assert known.receive().status == 200
    clients = [known] + [stack.enter_context(Client(probe.address)) for _ in range(3)]
    for waiting, (client, request) in enumerate(
        zip(clients, [long, head("GET", "/x"), long, head("GET", "/x")], strict=True)
    ):
        client.send(request)
        if waiting:
            probe.wait_for_metric(waiting, "poolsrv_queue_length")
        else:
            probe.wait_until(lambda: len(gate.arrivals()) == 2)
    gate.release(1)
    assert [client.receive().status for client in clients[:2]] == [200, 200]
    return clients[2:]


@pytest.mark.parametrize("target", ["/hold?gate=gate", "http://test.example/hold?gate=gate"])
def test_a_short_request_overtakes_a_long_one_that_waits(
    server: Start, gate: Gate, target: str
) -> None:
    probe = server(PROBE, processes=1, threads=1, queue_overtaking=1000)
    with ExitStack() as stack:
        long, short = long_before_short(stack, probe, gate, head("GET", target))
        # Before it, the other would hold the thread: nobody lets it go yet.
        assert short.receive().status == 200
        gate.release(1)
        assert long.receive().status == 200
    assert probe.metric("poolsrv_queue_overtakings_total") == 1


def test_overtaking_can_be_forbidden(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1, queue_overtaking=0)
    with ExitStack() as stack:
        long, short = long_before_short(stack, probe, gate)
        probe.wait_until(lambda: len(gate.arrivals()) == 3)
        assert probe.metric("poolsrv_queue_length") == 1
        gate.release(1)
        assert [long.receive().status, short.receive().status] == [200, 200]
    assert probe.metric("poolsrv_queue_overtakings_total") == 0


def test_a_request_that_waited_too_long_is_refused(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1, queue_timeout="0.2s")
    with ExitStack() as stack:
        (pinned,) = held_requests(stack, probe, gate, 1)
        with Client(probe.address) as late:
            response = late.get("/x")
            assert (response.status, response.get("Connection")) == (503, "close")
            assert (response.get("Retry-After") or "").isdecimal()
            late.expect_end()
        gate.release(1)
        assert pinned.receive().status == 200
    serves(probe)


def test_the_queue_has_an_end(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1, queue_size=2)
    with ExitStack() as stack:
        held_requests(stack, probe, gate, 1)
        waiting = []
        for _ in range(2):
            client = stack.enter_context(Client(probe.address))
            client.send(head("GET", "/x"))
            waiting.append(client)
            probe.wait_for_metric(len(waiting), "poolsrv_queue_length")
        with Client(probe.address) as surplus:
            assert surplus.get("/x").status == 503
            surplus.expect_end()
        gate.release(1)
        assert [client.receive().status for client in waiting] == [200, 200]


# Kept connections that wait for a thread


def wait_kept(
    stack: ExitStack, probe: Server, gate: Gate, number: int, target: str = "/x"
) -> tuple[Client, list[Client]]:
    """A request that holds the only thread, and so many that wait on kept connections."""
    kept = [stack.enter_context(Client(probe.address)) for _ in range(number)]
    for client in kept:
        assert client.get("/x").status == 200
    (pinned,) = held_requests(stack, probe, gate, 1)
    for waiting, client in enumerate(kept, 1):
        client.send(head("GET", target))
        probe.wait_for_metric(waiting, "poolsrv_queue_length")
    return pinned, kept


def test_a_kept_connection_waits_where_it_is_and_in_the_one_queue(
    server: Start, gate: Gate
) -> None:
    probe = server(PROBE, processes=1, threads=1)
    with ExitStack() as stack:
        pinned, kept = wait_kept(stack, probe, gate, 8)
        assert probe.status()["queue"]["length"] == 8
        assert probe.metric("poolsrv_queue_oldest_seconds") > 0
        gate.release(1)
        assert pinned.receive().status == 200
        assert [client.receive().status for client in kept] == [200] * 8
    assert probe.metric("poolsrv_queue_length") == 0
    # Where they are for a while, then in the supervisor: no request travels twice.
    assert probe.metric("poolsrv_connections_handed_back_total") <= 8


def test_one_that_waits_on_a_kept_connection_is_refused_in_time(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1, queue_timeout="0.3s")
    with ExitStack() as stack:
        late = stack.enter_context(Client(probe.address))
        assert late.get("/x").status == 200
        held_requests(stack, probe, gate, 1)
        late.send(head("GET", "/x"))
        assert late.receive().status == 503
        late.expect_end()
        gate.release(1)
    assert probe.metric("poolsrv_connections_closed_total", reason="queue_timeout") == 1


def test_kept_connections_fill_the_queue_as_well(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1, queue_size=2)
    with ExitStack() as stack:
        surplus = stack.enter_context(Client(probe.address))
        assert surplus.get("/x").status == 200
        pinned, kept = wait_kept(stack, probe, gate, 2)
        surplus.send(head("GET", "/x"))
        assert surplus.receive().status == 503
        surplus.expect_end()
        gate.release(1)
        assert pinned.receive().status == 200
        assert [client.receive().status for client in kept] == [200, 200]


def test_what_waits_on_kept_connections_is_served_to_the_end(server: Start, gate: Gate) -> None:
    """Its worker drains: the supervisor has it sent to the one that is left."""
    probe = server(PROBE, processes=1, threads=1, allow_errors=KILLED)
    with ExitStack() as stack:
        pinned, kept = wait_kept(stack, probe, gate, 3)
        (worker,) = probe.workers()
        os.kill(worker, signal.SIGTERM)
        probe.wait_for_metric(3, "poolsrv_connections_handed_back_total")
        gate.release(1)
        assert pinned.receive().status == 200
        assert [client.receive().status for client in kept] == [200] * 3


def test_a_stop_serves_what_waits_on_kept_connections(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1)
    with ExitStack() as stack:
        pinned, kept = wait_kept(stack, probe, gate, 3)
        os.kill(probe.pid, signal.SIGTERM)
        probe.wait_for_log("SIGTERM: finishing what runs")
        gate.release(1)
        assert pinned.receive().status == 200
        assert [client.receive().status for client in kept] == [200] * 3
        probe.wait_until(lambda: probe.process.poll() is not None)


def test_those_that_wait_in_vain_until_the_end_of_a_stop_are_refused(
    server: Start, gate: Gate
) -> None:
    """In a worker whose thread does not come back, and in the supervisor."""
    probe = server(
        PROBE,
        processes=1,
        threads=1,
        graceful_timeout="2s",
        allow_errors=f"did not finish|{KILLED}",
    )
    with ExitStack() as stack:
        _, kept = wait_kept(stack, probe, gate, 3)
        new = stack.enter_context(Client(probe.address))
        new.send(head("GET", "/x"))
        probe.wait_for_metric(4, "poolsrv_queue_length")
        probe.terminate()
        for client in [new, *kept]:
            response = client.receive()
            assert (response.status, response.get("Connection")) == (503, "close")
            client.expect_end()
        assert probe.wait() == 0
    assert re.search(r" x 503 \((the latest: )?the server stops\)", probe.log())


def test_those_that_wait_behind_a_worker_for_long_survive_it(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=1, threads=1, allow_errors=KILLED)
    with ExitStack() as stack:
        pinned, kept = wait_kept(stack, probe, gate, 3)
        (worker,) = probe.workers()
        probe.wait_for_metric(3, "poolsrv_connections_handed_back_total")
        assert probe.metric("poolsrv_queue_length") == 3
        probe.kill(worker)
        assert [client.receive().status for client in kept] == [200] * 3
        assert pinned.receive().status == 502
    assert probe.metric("poolsrv_connections_closed_total", reason="worker_ended") == 1
    assert probe.metric("poolsrv_queue_length") == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_those_behind_pinned_threads_are_served_elsewhere(
    server: Start, gate: Gate, threads: int
) -> None:
    """Both workers hold connections; one worker is pinned while its own ask again."""
    probe = server(PROBE, processes=2, threads=threads)
    with ExitStack() as stack:
        kept = [stack.enter_context(Client(probe.address)) for _ in range(12)]
        for client in kept:
            assert client.get("/x").status == 200
        pinned = held_requests(stack, probe, gate, 2 * threads - 1)
        for _ in range(5):
            for client in kept:
                client.send(head("GET", "/x"))
            assert [client.receive().status for client in kept] == [200] * 12
        gate.release(len(pinned))
        assert [client.receive().status for client in pinned] == [200] * len(pinned)


# Slow clients


def test_slow_clients_hold_no_thread(server: Start) -> None:
    """Half a head, half a body and an answer that nobody reads, before one thread."""
    probe = server(PROBE, processes=1, threads=1)
    with ExitStack() as stack:
        heads, bodies, readers = (
            [stack.enter_context(Client(probe.address)) for _ in range(4)] for _ in range(3)
        )
        for client in heads:
            client.send(head("GET", "/x")[:-2])
        for client in bodies:
            client.send(head("POST", "/echo", "Content-Length: 6") + b"abc")
        for client in readers:
            client.send(head("GET", "/stream?count=10&size=90000"))
        for _ in range(20):
            serves(probe)
        for client in heads:
            client.send(b"\r\n")
            assert client.receive().status == 200
        for client in bodies:
            client.send(b"def")
            assert client.receive().body == b"abcdef"
        for client in readers:
            assert len(client.receive().body) == 900_000


LIMITED = "poolsrv_connections_limited_total"


@pytest.mark.parametrize("response_buffer", ["64MiB", "64KiB"])
def test_a_response_that_nobody_takes_is_cut_off(server: Start, response_buffer: str) -> None:
    """It waits without a thread, or a thread waits with it."""
    probe = server(
        PROBE, processes=1, threads=1, send_timeout="0.2s", response_buffer=response_buffer
    )
    with Client(probe.address) as client:
        client.send(head("GET", f"/stream?count=32&size={1 << 20}"))
        probe.wait_for_metric(1, LIMITED, limit="send_timeout")
        with pytest.raises(Truncated):
            client.receive()
    serves(probe)


def test_no_thread_waits_for_a_trickling_reader(server: Start) -> None:
    """The socket is writable again and again, but it cannot take a gigabyte a second."""
    probe = server(
        PROBE,
        processes=1,
        threads=1,
        send_timeout="0.5s",
        send_min_rate="1GiB",
        response_buffer="64KiB",
    )
    with Client(probe.address) as trickling:
        trickling.send(head("GET", f"/stream?count=1000000&size={1 << 20}"))

        def is_cut_off() -> bool:
            for _ in range(32):
                with suppress(ConnectionResetError):  # the cut
                    trickling.socket.recv(65536)
            return probe.metric(LIMITED, limit="send_timeout") == 1

        probe.wait_until(is_cut_off)
        serves(probe)


def test_a_thread_waits_for_a_steady_reader(server: Start) -> None:
    """One that has not taken any more until the thread waits for it again."""
    probe = server(PROBE, processes=1, threads=1, send_timeout="10s", response_buffer="64KiB")
    with Client(probe.address) as steady:
        # Or the kernel would take more for it with each read.
        steady.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        steady.send(head("GET", f"/stream?count=32&size={1 << 20}"))
        for taken in range(1, 9):
            probe.wait_until(
                lambda: [row["state"] for row in probe.status()["running"]] == ["writing"]
            )
            while len(steady.received) < taken << 20:
                steady.received += steady.socket.recv(65536)
        assert len(steady.receive().body) == 32 << 20
    assert probe.metric(LIMITED, limit="send_timeout") == 0


def test_a_head_that_does_not_end_is_cut_off(server: Start) -> None:
    probe = server(PROBE, header_timeout="0.2s")
    with Client(probe.address) as client:
        client.send(head("GET", "/x")[:-2])
        assert client.receive().status == 408
        client.expect_end()


def test_a_body_that_does_not_come_is_cut_off(server: Start) -> None:
    probe = server(PROBE, body_timeout="0.2s")
    with Client(probe.address) as client:
        client.send(head("POST", "/echo", "Content-Length: 6") + b"abc")
        assert client.receive().status == 408
        client.expect_end()


def test_an_idle_connection_is_closed(server: Start) -> None:
    probe = server(PROBE, keep_alive_timeout="0.2s")
    with Client(probe.address) as client:
        assert client.get("/x").status == 200
        client.expect_end()


# Processes that die


def test_only_requests_inside_a_killed_worker_fail(server: Start, gate: Gate) -> None:
    probe = server(PROBE, processes=2, threads=2, allow_errors=KILLED)
    with ExitStack() as stack:
        clients = held_requests(stack, probe, gate, 4)
        inside = [process for process, _ in gate.arrivals()]
        victim = inside[0]
        probe.kill(victim)
        probe.wait_until(lambda: replaced(probe, victim))
        gate.release(4)
        for client, process in zip(clients, inside, strict=True):
            if process == victim:
                assert client.receive().status == 502
            else:
                assert client.receive().body.split()[0] == str(process).encode()
    probe.wait_for_metric(1, "poolsrv_worker_restarts_total", reason="signal")
    probe.wait_until(lambda: len(probe.processes()) == len(probe.living()))
    serves(probe)


class Load:
    """Clients that ask without a pause, each request on a connection of its own."""

    def __init__(self, server: Server, clients: int) -> None:
        self.server = server
        self.failures = [0] * clients
        self.answers = [0] * clients
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, more: int) -> None:
        """Until every client has had so many more answers."""
        wanted = [answers + more for answers in self.answers]
        self.server.wait_until(
            lambda: all(have >= want for have, want in zip(self.answers, wanted, strict=True)),
            deadline=30,
        )

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                with Client(self.server.address) as client:
                    status = client.get("/x", "Connection: close").status
            except Truncated:
                self.failures[number] += 1
            else:
                assert status in (200, 502)
                self.failures[number] += status == 502
                self.answers[number] += status == 200


COUNTING = ("_total", "_count", "_sum", "_bucket")


def steps_back(before: Metrics, after: Metrics) -> list[tuple[str, frozenset[tuple[str, str]]]]:
    """The counters that are smaller than they were, or gone."""
    return [
        key
        for key, value in before.items()
        if key[0].endswith(COUNTING) and after.get(key, -1.0) < value
    ]


def test_a_worker_killed_under_load(server: Start) -> None:
    probe = server(PROBE, processes=2, threads=4, allow_errors=KILLED)
    held = len(probe.descriptors())
    with Load(probe, clients=6) as load:
        for _ in range(2):
            load.wait_for(50)
            before = probe.metrics()
            victim = probe.workers()[0]
            probe.kill(victim)
            while not replaced(probe, victim):
                after = probe.metrics()
                assert steps_back(before, after) == []
                before = after
            load.wait_for(20)
            assert steps_back(before, probe.metrics()) == []
    # At most the one request of each client that was inside when a worker died.
    assert max(load.failures) <= 2
    assert sum(load.failures) <= 2 * 4
    assert probe.metric("poolsrv_worker_restarts_total") == 2, probe.log()
    probe.wait_until(lambda: len(probe.processes()) == len(probe.living()))
    probe.wait_until(lambda: len(probe.descriptors()) <= held)


def stopped(pid: int) -> bool:
    """Every thread of it: a signal is sent before it has arrived everywhere."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_what_a_killed_worker_had_not_received_is_served_by_another(server: Start) -> None:
    """A stopped process takes nothing from its channel."""
    probe = server(PROBE, processes=2, threads=4, allow_errors=KILLED)
    victim = probe.workers()[0]
    probe.kill(victim, signal.SIGSTOP)
    probe.wait_until(lambda: stopped(victim))
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(8)]
        for client in clients:
            client.send(head("GET", "/show-process"))
        probe.wait_until(lambda: probe.metric("poolsrv_connections_dispatched_total") >= 8)
        probe.kill(victim)
        for client in clients:
            assert client.receive().body.split()[0] != str(victim).encode()
    assert probe.metric("poolsrv_connections_reclaimed_total") > 0
    probe.wait_until(lambda: replaced(probe, victim))


def test_an_idle_connection_outlives_every_worker(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=1, allow_errors=KILLED)
    with Client(probe.address) as client:
        assert client.get("/x").status == 200
        probe.wait_for_metric(1, "poolsrv_connections", state="parked")
        (victim,) = probe.workers()
        probe.kill(victim)
        probe.wait_until(lambda: replaced(probe, victim))
        assert client.get("/x").status == 200


def test_a_worker_that_dies_of_a_request(server: Start) -> None:
    probe = server(PROBE, processes=2, threads=2, allow_errors=KILLED)
    for number, target in enumerate(["/die?status=7", "/die?signal=SIGSEGV"], 1):
        with Client(probe.address) as client:
            assert client.get(target).status == 502
        probe.wait_for_metric(number, "poolsrv_worker_restarts_total")
        probe.wait_until(lambda: len(probe.workers()) == 2)
        serves(probe)


def test_a_worker_that_keeps_dying_backs_off(server: Start, tmp_path: Path) -> None:
    crashing = server("tests.apps.crashing:app", processes=1, allow_errors=".")
    (tmp_path / "crash").touch()
    crashing.kill(crashing.workers()[0])
    crashing.wait_until(lambda: crashing.status()["workers"][0]["state"] == "waiting")
    (tmp_path / "crash").unlink()
    crashing.wait_until(crashing.workers)
    serves(crashing)


@pytest.mark.parametrize("preload", [True, False])
def test_nobody_outlives_the_supervisor(server: Start, preload: bool) -> None:
    probe = server(PROBE, processes=2, threads=2, preload=preload)
    with Client(probe.address) as client:
        assert client.get("/x").status == 200
        assert len(probe.living()) > 2
        probe.kill(probe.pid)
        probe.wait()
        probe.wait_until(lambda: not probe.living())


def test_the_exporter_is_replaced(server: Start) -> None:
    probe = server(PROBE, allow_errors="exporter ended")
    serves(probe)
    before, victim = probe.metrics(), probe.exporter()
    probe.kill(victim)
    probe.wait_for_log("exporter ended")
    # Its listener stays open meanwhile: this waits in the backlog.
    assert steps_back(before, probe.metrics()) == []
    assert probe.exporter() != victim
    serves(probe)


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_request_is_finished_before_the_end(
    server: Start, gate: Gate, number: signal.Signals
) -> None:
    probe = server(PROBE, processes=2, threads=2)
    with ExitStack() as stack:
        clients = held_requests(stack, probe, gate, 3)
        idle = stack.enter_context(Client(probe.address))
        assert idle.get("/x").status == 200
        probe.terminate(number)
        idle.expect_end()
        probe.wait_until(lambda: probe.status()["server"]["state"] == "draining")
        gate.release(3)
        for client in clients:
            response = client.receive()
            assert (response.status, response.get("Connection")) == (200, "close")
    assert probe.wait() == 0
    probe.wait_until(lambda: not probe.living())


def test_what_waits_in_a_stuck_worker_is_served_before_the_end(server: Start, gate: Gate) -> None:
    """It was sent there while the application was fast; then comes back to the queue."""
    probe = server(PROBE, processes=1, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(9)]
        for _ in range(200):
            assert clients[0].get("/x").status == 200
        clients[0].send(HELD)
        probe.wait_until(lambda: probe.status()["running"])
        for client in clients[1:]:
            client.send(head("GET", "/x"))
        probe.terminate()
        probe.wait_until(lambda: probe.status()["server"]["state"] == "draining")
        gate.release(1)
        assert [client.receive().status for client in clients] == [200] * 9


def is_lost(client: Client) -> bool:
    """It is answered 502, unless the supervisor ends before it has heard of the request."""
    try:
        return client.receive().status == 502
    except Truncated:
        return True


def test_an_end_that_takes_too_long_is_forced(server: Start, gate: Gate) -> None:
    probe = server(PROBE, graceful_timeout="0.2s", allow_errors=".")
    with ExitStack() as stack:
        (client,) = held_requests(stack, probe, gate, 1)
        probe.terminate()
        assert is_lost(client)
    probe.wait()
    probe.wait_until(lambda: not probe.living())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(server: Start, gate: Gate, number: signal.Signals) -> None:
    """Given again until it is taken for a second order: some senders say one twice."""
    probe = server(PROBE, allow_errors=".")

    def told_again() -> bool:
        probe.terminate(number)
        return probe.process.poll() is not None

    with ExitStack() as stack:
        (client,) = held_requests(stack, probe, gate, 1)
        probe.wait_until(told_again)
        assert is_lost(client)
    probe.wait_until(lambda: not probe.living())


def test_a_signal_to_all_processes_is_one_to_the_supervisor(server: Start, gate: Gate) -> None:
    """As a terminal, systemd and some containers send it."""
    probe = server(PROBE, processes=2, threads=2)
    with ExitStack() as stack:
        clients = held_requests(stack, probe, gate, 3)
        os.killpg(probe.pid, signal.SIGTERM)
        probe.wait_for_log("SIGTERM: finishing what runs")
        gate.release(3)
        assert [client.receive().status for client in clients] == [200] * 3
    assert probe.wait() == 0
    probe.wait_until(lambda: not probe.living())


# Servers that do not start


@pytest.mark.parametrize("preload", [True, False])
def test_an_application_that_cannot_be_imported(tmp_path: Path, preload: bool) -> None:
    status, log = run_to_end("tests.apps.broken:app", tmp_path, processes=2, preload=preload)
    assert status == 3
    assert log.count("RuntimeError: broken on purpose") == 1
    assert "tests/apps/broken.py" in log


def test_an_application_that_is_not_there(tmp_path: Path) -> None:
    status, log = run_to_end("tests.apps.hello:nothing", tmp_path, processes=2)
    assert status == 3
    assert "nothing" in log


def test_an_address_in_use(server: Start, tmp_path: Path) -> None:
    probe = server(PROBE)
    application, admin = (url.removeprefix("http://") for url in (probe.url, probe.admin_url))
    for options, taken in [({"bind": application}, application), ({"admin": admin}, admin)]:
        status, log = run_to_end(PROBE, tmp_path, **options)
        assert status == 4
        assert taken in log
        assert f"pid {probe.pid}" in log


def test_a_bad_option(tmp_path: Path) -> None:
    status, log = run_to_end(PROBE, tmp_path, threads="many")
    assert status == 2
    assert "--threads" in log


# Crowds


def test_connections_one_after_another_leave_nothing(server: Start) -> None:
    probe = server(PROBE, processes=2, threads=2)

    def held() -> int:
        return sum(len(probe.descriptors(pid)) for pid in [probe.pid, *probe.workers()])

    before = held()
    for number in range(1000):
        with Client(probe.address) as client:
            if number % 10:
                assert client.get("/x").status == 200
    probe.wait_until(lambda: held() <= before)


@pytest.mark.usefixtures("many_descriptors")
def test_two_thousand_idle_connections(server: Start) -> None:
    probe = server(PROBE, processes=2, threads=2, header_timeout="1h", keep_alive_timeout="1h")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(2000)]
        for client in clients:
            assert client.get("/x").status == 200
        probe.wait_for_metric(2000, "poolsrv_connections", state="parked")
        serves(probe)
        for client in clients:
            assert client.get("/x").status == 200


def test_garbage(server: Start) -> None:
    """Each is answered with an error or none and cut off; the others do not notice."""
    probe = server(PROBE, processes=2, threads=2)
    chance = random.Random(2)
    with Client(probe.address) as friend:
        for number in range(200):
            garbage = chance.randbytes(chance.randrange(1, 3000))
            with Client(probe.address) as client:
                client.send([b"\r\n\r\n\r\n", b"GET ", b"GET / HTTP/1.1\r\n"][number % 3] + garbage)
                client.socket.shutdown(socket.SHUT_WR)
                assert b" 200 " not in client.read_to_end()
            assert friend.get("/x").status == 200


def test_a_server_that_drains_refuses_new_clients(server: Start, gate: Gate) -> None:
    """At once: in the backlog they would wait for the end and then see a reset."""
    probe = server(PROBE)
    address = probe.address
    with ExitStack() as stack:
        (client,) = held_requests(stack, probe, gate, 1)
        probe.terminate()
        probe.wait_until(lambda: probe.status()["server"]["state"] == "draining")
        with pytest.raises(ConnectionRefusedError):
            Client(address)
        gate.release(1)
        assert client.receive().status == 200
    assert probe.wait() == 0


def test_each_limit_that_closes_a_connection_is_counted(server: Start) -> None:
    probe = server(PROBE, keep_alive_requests=2, header_timeout="0.3s", body_timeout="0.3s")
    name = "poolsrv_connections_limited_total"
    with Client(probe.address) as client:
        assert client.get("/x").get("Connection") is None
        assert client.get("/x").get("Connection") == "close"
        client.expect_end()
    probe.wait_for_metric(1, name, limit="keep_alive_requests")
    with Client(probe.address) as client:
        client.send(head("GET", "/x")[:-2])
        assert client.receive().status == 408
    probe.wait_for_metric(1, name, limit="header_timeout")
    with Client(probe.address) as client:
        client.send(head("POST", "/echo", "Content-Length: 5") + b"ab")
        assert client.receive().status == 408
    probe.wait_for_metric(1, name, limit="body_timeout")


def test_an_access_log_on_a_full_disk_is_said_once(server: Start) -> None:
    probe = server(PROBE, threads=1, access_log="/dev/full")
    with Client(probe.address) as client:
        for _ in range(20):
            assert client.get("/x").status == 200
    probe.wait_for_log("WARNING .*access log cannot be written: No space left")
    assert probe.log().count("access log cannot be written") == 1


def test_a_body_that_cannot_be_spooled_is_answered(server: Start) -> None:
    probe = server(PROBE, body_buffer="1KiB", env={"TMPDIR": "/does/not/exist"})
    with Client(probe.address) as client:
        # More than a thread's buffer, which serves a body that has come whole.
        client.send(head("POST", "/echo", "Content-Length: 200000") + b"x" * 200_000)
        response = client.receive()
        assert (response.status, response.get("Connection")) == (500, "close")
    probe.wait_for_log("WARNING .*cannot keep a request body .*TMPDIR")
    with Client(probe.address) as client:
        assert client.get("/x").status == 200


HUNGRY = """
def app(environ, start_response):
    body = b"%d" % len(bytearray(8 << 30 if environ["PATH_INFO"] == "/huge" else 2))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_a_request_for_which_there_is_no_memory_fails_alone(server: Start, tmp_path: Path) -> None:
    """A limit of the process, not of a cgroup: then nobody is killed."""
    (tmp_path / "hungry.py").write_text(HUNGRY)
    hungry = server(
        "hungry:app",
        through=("prlimit", f"--as={4 << 30}"),
        processes=1,
        threads=2,
        pythonpath=tmp_path,
        allow_errors="POOL302",
    )
    before = hungry.workers()
    with Client(hungry.address) as kept:
        assert kept.get("/").body == b"2"
        with Client(hungry.address) as client:
            assert client.get("/huge").status == 500
            assert client.get("/").body == b"2"
        assert kept.get("/").body == b"2"
    assert hungry.workers() == before
    assert "MemoryError" in hungry.log()
