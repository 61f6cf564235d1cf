"""Finished answers that wait for each other while requests wait for the thread."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import Server

COMPUTING = "tests.apps.computing:app"
Start = Callable[..., Server]

# So many at once that the last ones wait for tens of calls.
MANY = 48
WAYS = ("/list", "/closing", "/chunked", "/pieces", "/write")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path)) as made:
        yield made


def gathered(server: Server) -> float:
    return server.metric("poolsrv_answers_gathered_total", worker="0")


def ask_all(clients: list[Client], way: str, number: int) -> None:
    for at, client in enumerate(clients):
        client.send(head("GET", f"{way}?{number}-{at}"))


def check_all(clients: list[Client], number: int) -> None:
    for at, client in enumerate(clients):
        reply = client.receive()
        assert (reply.status, reply.body) == (200, f"{number}-{at}".encode())


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("way", WAYS)
def test_each_client_gets_its_answer(server: Start, way: str, threads: int) -> None:
    computing = server(COMPUTING, threads=threads)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        for number in range(5):
            ask_all(clients, way, number)
            check_all(clients, number)
    assert computing.metric("poolsrv_requests_total", status_class="2xx") == 5 * MANY


@pytest.mark.parametrize("way", ["/list", "/closing"])
def test_answers_go_together_where_requests_wait(server: Start, way: str) -> None:
    """Not if calls take longer than a tick, so another try may be needed on a busy machine."""
    computing = server(COMPUTING, threads=1)
    asked = 0

    def are_gathered() -> bool:
        nonlocal asked
        ask_all(clients, way, asked)
        check_all(clients, asked)
        asked += 1
        return gathered(computing) > 0

    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        computing.wait_until(are_gathered)


def test_one_that_hangs_keeps_no_answer_back(server: Start, gate: Gate) -> None:
    computing = server(COMPUTING, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        ask_all(clients, "/list", 0)
        check_all(clients, 0)
        half = MANY // 2
        ask_all(clients[:half], "/list", 1)
        clients[half].send(head("GET", "/hold?held"))
        ask_all(clients[half + 1 :], "/list", 1)
        check_all(clients[:half], 1)
        computing.wait_until(lambda: len(gate.arrivals()) == 1)
        gate.release(1)
        assert clients[half].receive().body == b"held"
        check_all(clients[half + 1 :], 1)


def test_pipelined_requests_are_answered_in_order(server: Start) -> None:
    computing = server(COMPUTING, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        for number in range(4):
            ask_all(clients, "/list", number)
        for number in range(4):
            check_all(clients, number)


def test_a_child_of_the_application_sends_nothing(server: Start) -> None:
    computing = server(COMPUTING, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        for number in range(4):
            ask_all(clients[:-8], "/list", number)
            clients[-8].send(head("GET", f"/child?{number}-{MANY - 8}"))
            for at, client in enumerate(clients[-7:], MANY - 7):
                client.send(head("GET", f"/list?{number}-{at}"))
            check_all(clients, number)


@pytest.mark.parametrize("leave", [Client.close, Client.reset])
def test_clients_that_leave_take_nothing_with_them(
    server: Start, leave: Callable[[Client], None]
) -> None:
    computing = server(COMPUTING, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        for number in range(3):
            ask_all(clients, "/closing", number)
            check_all(clients, number)
        ask_all(clients, "/closing", 3)
        for client in clients[::2]:
            leave(client)
        for at, client in enumerate(clients[1::2]):
            assert client.receive().body == f"3-{2 * at + 1}".encode()
        for state in ("writing", "running", "reading"):
            computing.wait_for_metric(0, "poolsrv_connections", state=state)


def test_answers_that_wait_in_a_worker_that_is_killed_are_502(server: Start) -> None:
    computing = server(COMPUTING, threads=1, allow_errors="worker was ended by")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        seen: set[int] = set()
        # Nobody sees from outside how many answers wait at that moment.
        for number in range(8):
            ask_all(clients, "/list", 0)
            check_all(clients, 0)
            ask_all(clients[: MANY // 2], "/list", 1)
            with Client(computing.address) as last:
                last.send(head("GET", f"/die?{number}"))
                ask_all(clients[MANY // 2 :], "/list", 1)
                assert last.receive().status == 502
            for at, client in enumerate(clients):
                reply = client.receive()
                seen.add(reply.status)
                if reply.status == 200:
                    assert reply.body == f"1-{at if at < MANY // 2 else at - MANY // 2}".encode()
                else:
                    assert reply.status == 502
                    client.expect_end()
                    clients[at] = stack.enter_context(Client(computing.address))
        assert 200 in seen


def test_a_call_that_keeps_the_interpreter_keeps_no_answer_back(
    server: Start, gate: Gate, tmp_path: Path
) -> None:
    computing = server(COMPUTING, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        ask_all(clients, "/list", 0)
        check_all(clients, 0)
        half = MANY // 2
        ask_all(clients[:half], "/list", 1)
        clients[half].send(head("GET", "/grip?held"))
        check_all(clients[:half], 1)
        computing.wait_until((tmp_path / "gripped").exists)
        gate.release(1)
        assert clients[half].receive().body == b"held"


def test_answers_to_head_are_whole(server: Start) -> None:
    computing = server(COMPUTING, threads=1)

    def are_gathered() -> bool:
        for at, client in enumerate(clients):
            client.send(head("HEAD", f"/list?{at}"))
        for at, client in enumerate(clients):
            reply = client.receive(to_head=True)
            assert (reply.status, reply.body) == (200, b"")
            assert reply.get("Content-Length") == str(len(str(at)))
        return gathered(computing) > 0

    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        computing.wait_until(are_gathered)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_answers_are_sent_before_a_worker_ends(server: Start, number: signal.Signals) -> None:
    computing = server(COMPUTING, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        for asked in range(3):
            ask_all(clients, "/list", asked)
            check_all(clients, asked)
        ask_all(clients, "/list", 3)
        assert clients[0].receive().body == b"3-0"
        computing.terminate(number)
        for at, client in enumerate(clients[1:], 1):
            assert client.receive().body == f"3-{at}".encode()
