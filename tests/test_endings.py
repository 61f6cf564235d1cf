"""How connections end: no answer is lost to it, and none is given that nobody asked for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import Server

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
