"""Requests of several groups on one connection: each is answered by a worker of its group, in
order, and none of the groups is in another's way."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from poolsrv import _core
from tests.client import Client, head
from tests.groups import Groups, Place, answer, grouped
from tests.waiting import wait_until

TWO = (Place("", "", 0), Place("", "/b", 1))
HOSTS = (*TWO, Place("b.example", "", 1))


def said(group: int, text: str) -> bytes:
    return f"{group} {text}".encode()


def test_a_kept_connection_goes_from_group_to_group() -> None:
    with grouped(TWO) as server, Client(server.address) as client:
        for turn in range(100):
            assert client.get(f"/{turn}").body == said(0, f"GET |/{turn} 0 ")
            assert client.get(f"/b/{turn}").body == said(1, f"GET /b|/{turn} 0 ")
        assert server.switches() == 199


def post(path: str, body: bytes, *, chunked: bool = False) -> bytes:
    if not chunked:
        return head("POST", path, f"Content-Length: {len(body)}") + body
    half = len(body) // 2
    pieces = b"".join(
        f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        for piece in (body[:half], body[half:])
        if piece
    )
    return head("POST", path, "Transfer-Encoding: chunked") + pieces + b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_go_with_their_requests(chunked: bool) -> None:
    sizes = (0, 1, 100, 16000, 16384, 16500, 70000, 300000)
    with grouped(TWO) as server, Client(server.address) as client:
        for size in sizes:
            for group, path in ((0, "/"), (1, "/b/x")):
                client.send(post(path, bytes([65 + group]) * size, chunked=chunked))
                body = client.receive().body
                assert body.startswith(f"{group} POST ".encode())
                assert body.endswith(f" {size} ".encode() + bytes([65 + group]) * min(size, 20))


def mixed(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices((0, 1), k=count)


def test_what_is_sent_ahead_is_answered_in_order() -> None:
    with grouped(TWO) as server, Client(server.address) as client:
        groups = mixed(40, 1)
        paths = [("/b" if group else "") + f"/{turn}" for turn, group in enumerate(groups)]
        client.send(b"".join(head("GET", path) for path in paths))
        for turn, group in enumerate(groups):
            assert client.receive().body == said(group, f"GET {'/b' * group}|/{turn} 0 ")
        client.send(
            b"".join(post(path, b"x" * 1000 * turn) for turn, path in enumerate(paths[:20]))
        )
        for turn, group in enumerate(groups[:20]):
            body = client.receive().body
            assert body.startswith(said(group, f"POST {'/b' * group}|/{turn} {1000 * turn} "))


@pytest.mark.parametrize("places", [TWO, HOSTS], ids=["paths", "hosts"])
def test_heads_come_byte_by_byte(places: tuple[Place, ...]) -> None:
    """With another group's request behind: no byte of that is taken along."""
    with grouped(places) as server, Client(server.address) as client:
        for turn, group in enumerate(mixed(6, 2)):
            path, other = ("/b/x", "/y") if group else ("/x", "/b/y")
            for byte in head("GET", path):
                client.send(bytes([byte]))
            assert client.receive().body == said(group, f"GET {'/b' * group}|/x 0 ")
            whole = head("GET", path) + head("GET", other)
            cut = turn * 9
            client.send(whole[:cut])
            time.sleep(0.002)
            client.send(whole[cut:])
            assert client.receive().body == said(group, f"GET {'/b' * group}|/x 0 ")
            assert client.receive().body == said(1 - group, f"GET {'/b' * (1 - group)}|/y 0 ")


def test_a_host_leads_to_a_group() -> None:
    with grouped(HOSTS) as server, Client(server.address) as client:
        for turn in range(20):
            group = turn % 2
            name = "B.example:80" if group else "a.example"
            client.send(f"GET /{turn} HTTP/1.1\r\nX: y\r\nHost: {name}\r\n\r\n".encode())
            assert client.receive().body == said(group, f"GET |/{turn} 0 ")


def test_the_next_request_behind_chunks_is_not_taken_to_another_group() -> None:
    """Its first bytes may have come into our hands with the last chunk: the client repeats it."""
    first = post("/", b"x" * 100, chunked=True)
    with grouped(TWO) as server:
        with Client(server.address) as client:
            client.send(first + head("GET", "/b/next"))
            answered = client.receive()
            assert answered.body.startswith(b"0 POST | 100 ") or answered.body.startswith(
                b"0 POST |/ 100 "
            )
            assert answered.get("Connection") == "close"
            assert client.read_to_end() == b""
        with Client(server.address) as client:
            client.send(first + head("GET", "/next"))
            assert client.receive().get("Connection") is None
            assert client.receive().body == said(0, "GET |/next 0 ")


def test_large_heads() -> None:
    """Beyond what is looked at, the first lines must say whose it is."""
    wide = [f"X-{number}: {'x' * 4000}" for number in range(5)]
    with grouped(HOSTS) as server, Client(server.address) as client:
        for turn in range(6):
            group = turn % 2
            path = ("/b" if group else "") + "/wide"
            client.send(head("GET", path, *wide) + head("GET", path))
            body = said(group, f"GET {'/b' * group}|/wide 0 ")
            assert client.receive().body == body
            assert client.receive().body == body
        client.send(head("GET", "/", *wide) + head("GET", "/b"))
        answered = client.receive()
        assert answered.body == said(0, "GET |/ 0 ")
        assert answered.get("Connection") == "close"
    with grouped(HOSTS) as server, Client(server.address) as client:
        lines = "\r\n".join(["GET / HTTP/1.1", *wide, "Host: b.example", "", ""])
        client.send(lines.encode())
        assert client.receive().status == 431


def sleepy(gate: threading.Event) -> Callable[..., list[bytes]]:
    hello = answer(0)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/sleep":
            gate.wait(30)
        return hello(environ, start_response)

    return application


def test_a_group_whose_threads_all_sleep_is_in_nobodys_way() -> None:
    gate = threading.Event()
    with grouped(TWO, (sleepy(gate), answer(1))) as server:
        kept = [Client(server.address) for _ in range(4)]
        for client in kept:
            assert client.get("/").status == 200  # the worker of the group that sleeps has it
        sleepers = [Client(server.address) for _ in range(5)]
        for client in sleepers:
            client.send(head("GET", "/sleep"))
        wait_until(lambda: server.groups[0].board.load(0)[0] >= 2)
        time.sleep(0.02)
        for client in kept:
            client.socket.settimeout(5)
            began = time.monotonic()
            assert client.get("/b/x").body == said(1, "GET /b|/x 0 ")
            assert time.monotonic() - began < 2
        with Client(server.address) as client:
            for _ in range(20):
                assert client.get("/b").body == said(1, "GET /b| 0 ")
        gate.set()
        for client in sleepers:
            assert client.receive().body == said(0, "GET |/sleep 0 ")
        for client in kept + sleepers:
            client.close()


def test_a_group_without_a_worker_is_asked_for() -> None:
    with grouped(TWO, enabled=(0,)) as server:
        with Client(server.address) as client:
            assert client.get("/").status == 200
            client.send(head("GET", "/b"))
            wait_until(lambda: (_core.EVENT_WANTED, 1) in server.told)
            with Client(server.address) as other:
                assert other.get("/").status == 200
            server.do(lambda: server.groups[1].dispatcher.enable(0, True))
            assert client.receive().body == said(1, "GET /b| 0 ")
        assert server.told.count((_core.EVENT_WANTED, 1)) == 1


def test_an_idle_connection_changes_its_group_without_a_worker() -> None:
    with grouped(TWO) as server, Client(server.address) as client:
        assert client.get("/").status == 200
        wait_until(lambda: server.groups[0].of_supervisor("parked") == 1)
        assert client.get("/b").body == said(1, "GET /b| 0 ")
        assert server.switches() == 0


def test_a_client_that_ends_its_side() -> None:
    with grouped(TWO) as server:
        with Client(server.address) as client:
            assert client.get("/").status == 200
            client.send(head("GET", "/b"))
            client.socket.shutdown(1)
            assert client.receive().body == said(1, "GET /b| 0 ")
            assert client.read_to_end() == b""
        with Client(server.address) as client:
            assert client.get("/").status == 200
            client.send(head("GET", "/b")[:-1])
            client.socket.shutdown(1)
            assert client.read_to_end() == b""
        wait_until(lambda: server.groups[0].board.load(0)[0] == 0)
        assert server.groups[1].board.load(0)[0] == 0


def counted(server: Groups) -> list[int]:
    return [group.requests() for group in server.groups]


def test_each_group_counts_its_own_requests() -> None:
    with grouped(TWO) as server:
        with Client(server.address) as client:
            for path in ("/", "/b", "/b", "/"):
                assert client.get(path).status == 200
        wait_until(lambda: counted(server) == [2, 2])
