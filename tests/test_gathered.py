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
        for _ in range(3):
            are_gathered()
    assert computing.metric("poolsrv_requests_total", status_class="2xx") == asked * MANY


def test_one_that_hangs_keeps_no_answer_back(server: Start, gate: Gate) -> None:
    computing = server(COMPUTING, threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(computing.address)) for _ in range(MANY)]
        ask_all(clients, "/list", 0)
        check_all(clients, 0)
        before = gathered(computing)
        half = MANY // 2
        ask_all(clients[:half], "/list", 1)
        clients[half].send(head("GET", "/hold?held"))
        ask_all(clients[half + 1 :], "/list", 1)
        check_all(clients[:half], 1)
        assert len(gate.arrivals()) == 1
        assert gathered(computing) > before
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
        assert gathered(computing) > 0


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
