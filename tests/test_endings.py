"""How connections end: no answer is lost to it, and none is given that nobody asked for."""

import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.apps.gate import Gate
from tests.client import Client, Truncated, head
from tests.server import Server

pytestmark = pytest.mark.once

PROBE = "tests.apps.probe:app"
Start = Callable[..., Server]

HELD = "/hold?gate=gate"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path)) as made:
        yield made


def to_the_end(client: Client) -> bytes:
    """All that comes; ConnectionResetError if the client cannot read to the end."""
    received = b""
    while data := client.socket.recv(65536):
        received += data
    return received


def has_come(client: Client, event: int) -> bool:
    """Has the end come (POLLRDHUP), or a reset (POLLERR)?"""
    poll = select.poll()
    poll.register(client.socket, event)
    return any(happened & event for _, happened in poll.poll(0))


def send_on(client: Client) -> int:
    """Send until the connection is gone; how many bytes it took."""
    sent = 0
    piece = bytes(1 << 20)
    with suppress(ConnectionResetError, BrokenPipeError):
        while True:
            sent += client.socket.send(piece)
    return sent


# Bytes that nobody reads lie behind the request


BEHIND = {
    "the client closes": (head("GET", HELD, "Connection: close"), {}),
    "HTTP/1.0": (head("GET", HELD, version="1.0"), {}),
    "the last request of a connection": (head("GET", HELD), {"keep_alive_requests": 1}),
    "no keep-alive": (head("GET", HELD), {"keep_alive_timeout": "0s"}),
}


@pytest.mark.parametrize(("request_bytes", "options"), BEHIND.values(), ids=BEHIND)
def test_an_answer_survives_bytes_behind_its_request(
    server: Start, gate: Gate, request_bytes: bytes, options: dict[str, object]
) -> None:
    probe = server(PROBE, processes=1, threads=1, **options)
    with Client(probe.address) as client:
        client.send(request_bytes)
        probe.wait_until(gate.arrivals)
        client.send(b"\r\n" + head("GET", "/x"))
        gate.release(1)
        assert to_the_end(client).count(b"HTTP/1.1 200 OK") == 1


def test_an_answer_that_the_application_ends_the_connection_with_survives(server: Start) -> None:
    """More lies behind the request than one look at the socket takes."""
    probe = server(PROBE, processes=1, threads=1)
    with Client(probe.address) as client:
        client.send(head("GET", "/answer?name=Connection&value=close") + b"x" * 200_000)
        assert to_the_end(client).count(b"HTTP/1.1 200 OK") == 1


def test_an_answer_survives_what_comes_behind_a_late_body(server: Start, gate: Gate) -> None:
    """Old browsers put CR LF behind the body of a POST."""
    probe = server(PROBE, processes=1, threads=1)
    with Client(probe.address) as client:
        client.send(head("POST", "/echo", "Content-Length: 4", "Connection: close"))
        probe.wait_until(lambda: probe.metric("poolsrv_connections", state="reading"))
        client.send(b"body\r\n")
        assert to_the_end(client).endswith(b"\r\n\r\nbody")


CLOSED_AT_ONCE = {
    "the client closes": head("GET", "/x", "Connection: close"),
    "HTTP/1.0": head("GET", "/x", version="1.0"),
}


@pytest.mark.parametrize("request_bytes", CLOSED_AT_ONCE.values(), ids=CLOSED_AT_ONCE)
def test_a_client_that_has_said_its_last_is_not_waited_for(
    server: Start, request_bytes: bytes
) -> None:
    """It must send nothing more. If it does, it still has its answer."""
    probe = server(PROBE, processes=1, threads=1)
    with Client(probe.address) as client:
        client.send(request_bytes)
        probe.wait_until(lambda: has_come(client, select.POLLRDHUP))
        client.send(b"\r\n")
        probe.wait_until(lambda: has_come(client, select.POLLERR))
        assert client.socket.recv(65536).startswith(b"HTTP/1.1 200 OK")


NOT_CLOSED_AT_ONCE = {
    "a body": (head("POST", "/echo", "Content-Length: 4", "Connection: close") + b"body", {}),
    "the last request of a connection": (head("GET", "/x"), {"keep_alive_requests": 1}),
    "the application closes": (head("GET", "/answer?name=Connection&value=close"), {}),
}


@pytest.mark.parametrize(
    ("request_bytes", "options"), NOT_CLOSED_AT_ONCE.values(), ids=NOT_CLOSED_AT_ONCE
)
def test_an_answer_survives_what_its_client_sends_late(
    server: Start, request_bytes: bytes, options: dict[str, object]
) -> None:
    probe = server(PROBE, processes=1, threads=1, **options)
    with Client(probe.address) as client:
        client.send(request_bytes)
        probe.wait_until(lambda: has_come(client, select.POLLRDHUP))
        client.send(b"\r\n" + head("GET", "/x"))
        assert to_the_end(client).count(b"HTTP/1.1 200 OK") == 1
        assert not has_come(client, select.POLLERR)


@pytest.mark.parametrize("size", [10_000, 100_000, 300_000, 1_000_000, 3_000_000])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_on_its_way_survives_a_client_that_had_said_its_last(
    server: Start, version: str, size: int
) -> None:
    """What waits in the kernel for its reader would be lost to a reset."""
    probe = server(PROBE, processes=1, threads=1, response_buffer="16MiB")
    with Client(probe.address) as client:
        path = f"/give-list?count=1&size={size}"
        client.send(head("GET", path, "Connection: close", version=version))
        probe.wait_until(lambda: probe.metric("poolsrv_requests_total", status_class="2xx"))
        client.send(b"\r\n")
        assert len(to_the_end(client).partition(b"\r\n\r\n")[2]) == size


@pytest.mark.parametrize("path", ["/ignore-input", "/answer?body=x"])
def test_an_answer_survives_a_body_that_nobody_reads(server: Start, path: str) -> None:
    probe = server(PROBE, processes=1, threads=1, request_buffering=False)
    with Client(probe.address) as client:
        client.send(head("POST", path, "Content-Length: 100000000"))
        response = client.receive()
        assert response.status == 200
        client.send(b"x" * 10_000_000)
        assert to_the_end(client) == b""


# Waiting for clients to close


def test_clients_that_do_not_close_hold_no_thread(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=1)
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(Client(probe.address))
            client.send(head("GET", "/x", "Connection: close"))
            assert to_the_end(client).startswith(b"HTTP/1.1 200 OK")
        with Client(probe.address) as client:
            assert client.get("/x").status == 200


def test_a_connection_that_its_client_does_not_close_is_closed(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=1)
    (worker,) = probe.workers()
    before = len(probe.descriptors(worker))
    with Client(probe.address) as client:
        client.send(head("GET", "/x", "Connection: close"))
        assert to_the_end(client).startswith(b"HTTP/1.1 200 OK")
        probe.wait_until(lambda: len(probe.descriptors(worker)) == before)


@pytest.mark.parametrize("way", ["a worker", "the supervisor"])
def test_a_client_that_sends_on_for_a_second_can_read_its_answer(
    server: Start, gate: Gate, way: str
) -> None:
    """The end of our side is no end of the connection yet."""
    probe = server(PROBE, processes=1, threads=1, queue_timeout="0.2s", keep_alive_requests=1)
    with Client(probe.address) as client, Client(probe.address) as busy:
        if way == "the supervisor":
            busy.send(head("GET", HELD))
            probe.wait_until(gate.arrivals)
        client.send(head("GET", "/stream?count=30&size=10000"))
        ended = time.monotonic()
        if way == "the supervisor":
            probe.wait_for_metric(1, "poolsrv_requests_refused_total", status="503")
        else:
            probe.wait_for_metric(1, "poolsrv_requests_total", status_class="2xx")
        while time.monotonic() < ended + 1.2:
            client.send(b"and more")
            pass_time(probe, 0.05)
        received = to_the_end(client)
        if way == "the supervisor":
            assert received.startswith(b"HTTP/1.1 503 ")
            gate.release(1)
            assert busy.receive().status == 200
        else:
            assert received.count(b"x") >= 300_000


def test_what_a_client_sends_behind_its_last_answer_is_bounded(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=1)
    with Client(probe.address) as client:
        client.send(head("GET", "/x", "Connection: close"))
        assert to_the_end(client).startswith(b"HTTP/1.1 200 OK")
        sent = send_on(client)
    # What lies in the buffers of both sides was not thrown away, but lost.
    assert sent <= (64 + 24) << 20


def test_what_a_client_sends_behind_the_supervisors_refusal_is_bounded(
    server: Start, gate: Gate
) -> None:
    probe = server(PROBE, processes=1, threads=1, queue_timeout="0.2s")
    with Client(probe.address) as busy, Client(probe.address) as client:
        busy.send(head("GET", HELD))
        probe.wait_until(lambda: probe.status()["running"])
        client.send(head("GET", "/x"))
        assert to_the_end(client).startswith(b"HTTP/1.1 503 ")
        sent = send_on(client)
        gate.release(1)
        assert busy.receive().status == 200
    assert sent <= (64 + 24) << 20


# Processes that were stopped for a while


def stopped(server: Server, pid: int) -> bool:
    return any(process.pid == pid and process.state == "T" for process in server.processes())


def pass_time(server: Server, seconds: float) -> None:
    """Until a time limit is over: the one fact is the clock."""
    end = time.monotonic() + seconds
    server.wait_until(lambda: time.monotonic() > end)


@pytest.mark.parametrize(
    "sent", [b"POST /echo HT", head("POST", "/echo", "Content-Length: 4") + b"bo"]
)
def test_what_came_while_a_worker_was_stopped_counts(server: Start, sent: bytes) -> None:
    whole = head("POST", "/echo", "Content-Length: 4") + b"body"
    probe = server(PROBE, processes=1, threads=2, header_timeout="500ms", body_timeout="500ms")
    (worker,) = probe.workers()
    with Client(probe.address) as client:
        client.send(sent)
        probe.wait_for_metric(1, "poolsrv_connections", state="reading")
        probe.kill(worker, signal.SIGSTOP)
        probe.wait_until(lambda: stopped(probe, worker))
        client.send(whole[len(sent) :])
        pass_time(probe, 0.8)
        probe.kill(worker, signal.SIGCONT)
        response = client.receive()
        assert (response.status, response.body) == (200, b"body")


def test_what_came_while_the_supervisor_was_stopped_counts(server: Start) -> None:
    """Time limits of idle connections, and of the queue."""
    probe = server(
        PROBE,
        processes=1,
        threads=2,
        keep_alive_timeout="3s",
        header_timeout="3s",
        queue_timeout="1s",
    )
    with Client(probe.address) as kept, Client(probe.address) as new:
        assert kept.get("/x").status == 200
        probe.wait_for_metric(2, "poolsrv_connections", state="parked")
        probe.kill(probe.pid, signal.SIGSTOP)
        probe.wait_until(lambda: stopped(probe, probe.pid))
        kept.send(head("GET", "/x"))
        new.send(head("GET", "/x"))
        pass_time(probe, 3)
        probe.kill(probe.pid, signal.SIGCONT)
        assert kept.receive().status == 200
        assert new.receive().status == 200


# Answers that nobody asked for


def test_a_slow_reader_gets_no_second_answer_at_the_stop(server: Start, tmp_path: Path) -> None:
    """A proxy would take a 503 behind the answer for the answer to its next request."""
    (tmp_path / "large").write_bytes(b"x" * 20_000_000)
    probe = server(PROBE, processes=1, threads=2)
    with Client(probe.address) as client:
        client.send(head("GET", "/send-file?name=large"))
        probe.wait_for_metric(1, "poolsrv_connections", state="writing")
        probe.terminate()
        probe.wait_for_log("stopping|draining|SIGTERM")
        response = client.receive()
        assert response.status == 200
        client.expect_end()
    assert probe.wait() == 0


# The stop


class Asking(threading.Thread):
    """Asks on one kept connection, again at once, until it is told or finds the end."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._client = Client(address)
        self.answers = self.refusals = self.resets = self.unanswered = 0

    def run(self) -> None:
        with self._client as client:
            while True:
                try:
                    client.send(head("GET", "/x"))
                    response = client.receive()
                except (ConnectionResetError, BrokenPipeError):
                    self.resets += 1
                    return
                except Truncated:
                    self.unanswered += 1
                    return
                self.answers += response.status == 200
                self.refusals += response.status != 200
                if response.get("Connection") == "close":
                    return


@pytest.mark.parametrize("attempt", range(3))
def test_a_stop_answers_all_that_had_arrived(server: Start, attempt: int) -> None:
    probe = server(PROBE, processes=2, threads=4)
    clients = [Asking(probe.address) for _ in range(150)]
    for client in clients:
        client.start()
    probe.wait_until(lambda: all(client.answers > 2 for client in clients), 20)
    probe.terminate()
    for client in clients:
        client.join(20)
    assert probe.wait() == 0
    assert sum(client.resets for client in clients) == 0
    assert sum(client.unanswered for client in clients) == 0
    assert sum(client.refusals for client in clients) == 0


def test_a_stop_waits_for_no_idle_client_to_close(server: Start) -> None:
    """A pool of connections looks at one when it needs it."""
    probe = server(PROBE, processes=1, threads=4)
    clients = [Client(probe.address) for _ in range(20)]
    for client in clients:
        assert client.get("/x").status == 200
    probe.terminate()
    for client in clients:
        assert client.read_to_end() == b""  # an end, no reset
    told = time.monotonic()
    assert probe.wait() == 0
    assert time.monotonic() - told < LINGER_TIMEOUT
    for client in clients:
        client.close()


# A worker that is broken


def test_a_worker_whose_descriptors_were_closed_is_replaced(server: Start) -> None:
    probe = server(
        PROBE, processes=1, threads=2, allow_errors="worker exited with status 1|was lost"
    )
    (worker,) = probe.workers()
    with Client(probe.address) as client:
        client.send(head("GET", "/close-all"))
        client.read_to_end()
    probe.wait_for_log("does the application close what it has not opened")
    probe.wait_until(lambda: probe.workers() and probe.workers() != [worker])
    with Client(probe.address) as client:
        assert client.get("/x").status == 200


# Of csrc/common/clock.h: for so long a connection is kept that its client may still need.
LINGER_TIMEOUT = 2.0

COVERED = "worker exited with status 1|was lost|main thread cannot go on"


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("eventfd", "file"),
        ("eventfd", "eventfd"),
        ("eventpoll", "file"),
        ("socket", "file"),
        ("pidfd", "file"),
    ],
)
def test_a_worker_whose_descriptors_are_something_else_is_replaced(
    server: Start, kind: str, thing: str
) -> None:
    """And nobody has waited for what would have woken it."""
    probe = server(PROBE, processes=1, threads=2, allow_errors=COVERED)
    (worker,) = probe.workers()
    with Client(probe.address) as client:
        assert client.get(f"/cover?kind={kind}&thing={thing}").body != b"0"
        probe.wait_until(lambda: probe.workers() and probe.workers() != [worker])
    with Client(probe.address) as client:
        assert client.get("/show-process").status == 200


@pytest.mark.parametrize("kind", ["eventfd", "timerfd", "eventpoll", "socket"])
def test_a_stop_does_not_wait_for_who_cannot_be_woken(server: Start, kind: str) -> None:
    probe = server(PROBE, processes=1, threads=2, graceful_timeout="1h", allow_errors=COVERED)
    with Client(probe.address) as client:
        assert client.get(f"/cover?kind={kind}&thing=file", "Connection: close").body != b"0"
    assert probe.stop() == 0


# What clients can make a worker keep


def test_bodies_of_all_clients_together_are_limited(server: Start) -> None:
    """Beyond the limit they go to files."""
    probe = server(
        PROBE, processes=1, threads=2, worker_buffer="1MB", body_buffer="10MB", body_min_rate=0
    )
    (worker,) = probe.workers()
    with ExitStack() as stack:
        clients = []
        for number in range(1, 11):
            client = stack.enter_context(Client(probe.address))
            client.send(head("POST", "/echo", "Content-Length: 600000") + b"x" * 599_999)
            clients.append(client)
            probe.wait_for_metric(number, "poolsrv_connections", state="reading")
        probe.wait_until(lambda: sum("deleted" in name for name in probe.descriptors(worker)) >= 7)
        assert 600_000 <= probe.metric("poolsrv_worker_buffered_bytes") < 3_000_000
        for client in clients:
            client.send(b"x")
            assert client.receive().body == b"x" * 600_000
    probe.wait_for_metric(0, "poolsrv_worker_buffered_bytes")


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_in_files_are_limited_together(server: Start, chunked: bool) -> None:
    """Who needs more is refused; the others go on, and what they took is given back."""
    probe = server(
        PROBE, processes=1, threads=2, worker_spool="2MB", body_buffer="1KB", body_min_rate=0
    )
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 900000"
    start = b"DBBA0\r\n" if chunked else b""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(3)]
        for number, client in enumerate(clients[:2], 1):
            client.send(head("POST", "/echo", framing) + start + b"x" * 899_999)
            probe.wait_until(
                lambda taken=number * 850_000: probe.metric("poolsrv_worker_spooled_bytes") > taken
            )
        clients[2].send(head("POST", "/echo", framing) + start + b"x" * 899_999)
        refused = clients[2].receive()
        assert refused.status == 503
        assert b"too much is kept" in refused.body
        for client in clients[:2]:
            client.send(b"x\r\n0\r\n\r\n" if chunked else b"x")
            assert client.receive().body == b"x" * 900_000
        probe.wait_for_metric(0, "poolsrv_worker_spooled_bytes")
        with Client(probe.address) as again:
            again.send(head("POST", "/echo", "Content-Length: 900000") + b"x" * 900_000)
            assert again.receive().status == 200
        probe.wait_for_metric(0, "poolsrv_worker_spooled_bytes")


def test_a_request_in_parts_is_refused_when_too_much_is_kept(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=2, worker_buffer=3000, allow_errors=".")
    with ExitStack() as stack:
        slow = [stack.enter_context(Client(probe.address)) for _ in range(3)]
        for number, client in enumerate(slow[:2], 1):
            client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)
            probe.wait_for_metric(number, "poolsrv_connections", state="reading")
        slow[2].send(b"GET / HTTP/1.1\r\nX: ")
        assert slow[2].receive().status == 503
        with Client(probe.address) as whole:
            assert whole.get("/x").status == 200
        probe.kill(probe.workers()[0])
        probe.wait_for_metric(0, "poolsrv_worker_buffered_bytes")


def test_responses_of_all_clients_together_are_limited(server: Start) -> None:
    """A thread waits for the reader, though the application has ended."""
    probe = server(PROBE, processes=1, threads=2, worker_buffer="10MB", response_buffer="100MB")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(2)]
        for client, state in zip(clients, ("writing", "running"), strict=True):
            client.send(head("GET", "/give-list?size=1000000&count=20"))
            probe.wait_for_metric(1, "poolsrv_connections", state=state)
        for client in clients:
            assert len(client.receive().body) == 20_000_000


def read_slowly(server: Server, client: Client) -> None:
    while client.socket.recv(1000):
        pass_time(server, 0.05)


def test_a_reader_without_a_thread_is_held_to_the_least_rate(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=1, send_min_rate="1MB", send_timeout="1s")
    with Client(probe.address) as client:
        client.send(head("GET", "/give-list?size=1000000&count=20"))
        probe.wait_for_metric(1, "poolsrv_connections", state="writing")
        with pytest.raises(ConnectionResetError):
            read_slowly(probe, client)


def has_ended(client: Client) -> bool:
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1) == b""
    except BlockingIOError:
        return False


# Descriptors


@pytest.mark.parametrize("limit", [40, 64, 100, 127, 128, 129, 140, 192, 1024])
def test_what_is_accepted_has_a_descriptor_under_any_limit(server: Start, limit: int) -> None:
    """More clients than fit: all are answered, those idle longest make room, and are counted."""
    probe = server(
        PROBE, processes=2, threads=4, through=("prlimit", f"--nofile={limit}:{limit}", "--")
    )
    with ExitStack() as stack:
        count = min(limit, 256) if limit >= 100 else limit // 2 + 8
        clients = [stack.enter_context(Client(probe.address, 30)) for _ in range(count)]
        for client in clients:
            client.send(head("GET", "/x"))
        assert [client.receive().status for client in clients] == [200] * count
        probe.wait_until(lambda: probe.metric("poolsrv_connections", state="idle") == 0, 20)
        ended = sum(has_ended(client) for client in clients)
        assert probe.metric("poolsrv_connections_closed_total", reason="evicted") == ended
        assert (ended > 0) == (limit < 256 + 64)


def test_workers_full_of_slow_heads_lose_nobody(server: Start) -> None:
    """Each has its time and its answer; whoever comes after them waits as long."""
    probe = server(
        PROBE,
        processes=2,
        threads=2,
        header_timeout="1s",
        through=("prlimit", "--nofile=100:100", "--"),
    )
    with ExitStack() as stack:
        slow = [stack.enter_context(Client(probe.address, 30)) for _ in range(100)]
        for client in slow:
            client.send(b"GET / HT")
        last = stack.enter_context(Client(probe.address, 30))
        last.send(head("GET", "/x"))
        assert last.receive().status == 200
        assert [client.receive().status for client in slow] == [408] * 100
    assert probe.metric("poolsrv_requests_refused_total", status="408") == 100
    assert "lost" not in probe.log()


def test_a_limit_of_open_files_that_is_too_low_is_said(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        server = Server(PROBE, tmp_path, {}, {"processes": 8}, ("prlimit", "--nofile=64:64", "--"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    try:
        assert server.wait() == 5
        assert "the limit of open files is 64" in server.log()
        assert "LimitNOFILE= of systemd" in server.log()
    finally:
        server.end()
