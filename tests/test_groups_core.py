"""Requests of several groups on one connection: each is answered by a worker of its group, in
order, and none of the groups is in another's way."""

import contextlib
import random
import select
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolsrv import _core
from poolsrv.settings.rows import Settings
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
            gate.wait(90)  # longer than any client waits
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
        for client in kept:  # the gate is still shut
            assert client.get("/b/x").body == said(1, "GET /b|/x 0 ")
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


def test_a_client_that_waits_before_it_sends_a_body() -> None:
    with grouped(TWO) as server, Client(server.address) as client:
        for turn in range(4):
            group, path = turn % 2, "/b" if turn % 2 else "/"
            client.send(head("POST", path, "Content-Length: 5", "Expect: 100-continue"))
            assert client.receive().status == 100
            client.send(b"12345")
            assert client.receive().body.startswith(f"{group} POST ".encode())


def test_what_is_malformed_is_refused_wherever_it_comes() -> None:
    with grouped(TWO) as server:
        for wrong in (b"GET /b HTTP/1.1\r\n\r\n", b"GET /b\r\n", b"\x16\x03\x01\x02\r\n\r\n"):
            for served in (False, True):
                with Client(server.address) as client:
                    if served:
                        assert client.get("/").status == 200
                    client.send(wrong)
                    assert client.receive().status == 400
                    assert client.read_to_end() == b""


# Who is asked, by what proxies say

PROXIED = Settings(
    trust_proxy=(ip_network("127.0.0.1"),), forwarded_fields=("for", "host", "prefix")
)


def test_a_proxy_header_goes_along() -> None:
    with grouped(TWO, settings=replace(PROXIED, proxy_protocol="on")) as server:
        for group in (1, 0):
            for pause in (False, True):
                accepted = server.accepted()
                with Client(server.address) as client:
                    client.send(b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n")
                    if pause:  # the supervisor has it, and waits for the request
                        wait_until(lambda before=accepted: server.accepted() > before)
                    for turn in range(4):
                        wanted = group if turn % 2 == 0 else 1 - group
                        client.send(head("GET", "/b" if wanted else "/"))
                        assert client.receive().body[:1] == str(wanted).encode()


def test_a_trusted_proxy_says_who_is_asked() -> None:
    """The supervisor does not believe it, and is wrong each time; the workers agree."""
    asked = {0: ("b.example", "a.example"), 1: ("a.example", "b.example")}
    with grouped(HOSTS, settings=PROXIED) as server, Client(server.address) as client:
        for turn in range(20):
            group = turn // 2 % 2
            host, meant = asked[group]
            lines = f"GET /{turn} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: {meant}\r\n\r\n"
            client.send(lines.encode())
            assert client.receive().body == said(group, f"GET |/{turn} 0 ")
        # One after each change of group; what follows stays where it is.
        assert server.switches() == 10


def test_behind_chunks_of_a_trusted_proxy_nothing_is_taken_along() -> None:
    with grouped(TWO, settings=PROXIED) as server, Client(server.address) as client:
        client.send(post("/", b"x", chunked=True) + head("GET", "/"))
        assert client.receive().get("Connection") == "close"


def test_a_trusted_prefix_is_cut_off_first() -> None:
    with grouped(TWO, settings=PROXIED) as server, Client(server.address) as client:
        for _ in range(3):
            response = client.get("/app/b/x", "X-Forwarded-Prefix: /app")
            assert response.body == said(1, "GET /app/b|/x 0 ")
            assert client.get("/b/x").body == said(1, "GET /b|/x 0 ")


def test_workers_that_contradict_each_other_do_not_play_ball() -> None:
    """A worker of an older generation, say, that knows other mounts."""
    with grouped(TWO, beliefs={1: (Place("", "/b", 0), Place("", "", 0))}) as server:
        with Client(server.address) as client:
            assert client.get("/b").status == 421
            assert client.get("/").status == 200
            assert client.get("/b").status == 421
        assert server.switches() <= 4
        assert server.groups[0].requests() == 1


def test_what_nobody_has_mounted() -> None:
    places = (Place("a.example", "/a", 0), Place("b.example", "/b", 1))
    with grouped(places) as server, Client(server.address) as client:

        def ask(host: str, path: str) -> int:
            client.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return client.receive().status

        for _ in range(2):
            assert ask("a.example", "/a") == 200
            assert ask("a.example", "/b") == 404
            assert ask("c.example", "/b") == 421
            assert ask("b.example", "/b") == 200


# Time, and the end

SHORT = Settings(header_timeout=0.3)


def test_a_head_that_does_not_come_in_time() -> None:
    with grouped(TWO, settings=SHORT) as server:
        for served in (False, True):
            with Client(server.address) as client:
                if served:
                    assert client.get("/").status == 200
                client.send(b"GET /b HTTP/1.1\r\nHos")
                response = client.receive()
                assert (response.status, response.get("Connection")) == (408, "close")
                assert client.read_to_end() == b""


def test_heads_that_come_slowly_have_their_time_from_the_first_byte() -> None:
    with grouped(TWO, settings=SHORT) as server, Client(server.address) as client:
        assert client.get("/").status == 200
        whole = head("GET", "/b" + "x" * 1000)
        sent = 0
        # A byte comes before the time of the last one is over; the time of all is over first.
        while sent < len(whole) and not select.select([client.socket], [], [], 0.02)[0]:
            client.send(whole[sent : sent + 1])
            sent += 1
        assert sent < len(whole)
        assert client.receive().status == 408


def test_a_stop_serves_what_has_come_in_each_group() -> None:
    gate = threading.Event()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(grouped(TWO, (sleepy(gate), answer(1))))
        first = stack.enter_context(Client(server.address))
        first.send(head("GET", "/sleep") + head("GET", "/b/next"))
        idle = stack.enter_context(Client(server.address))
        assert idle.get("/b").status == 200
        wait_until(lambda: server.groups[0].board.load(0)[0] == 1)
        server.do(server.groups[0].dispatcher.stop)
        wait_until(lambda: not server.orders)
        gate.set()
        response = first.receive()
        assert (response.body, response.get("Connection")) == (said(0, "GET |/sleep 0 "), "close")
        assert first.read_to_end() == b""


def test_a_body_that_is_read_as_it_comes() -> None:
    settings = Settings(request_buffering=False)
    with grouped(TWO, settings=settings) as server, Client(server.address) as client:
        for turn in range(6):
            group, path = turn % 2, "/b" if turn % 2 else "/"
            body = b"x" * 50000
            client.send(post(path, body)[:-1])
            client.send(body[-1:] + head("GET", path))
            assert client.receive().body.startswith(f"{group} POST ".encode())
            assert client.receive().body.startswith(f"{group} GET ".encode())


# All of it


@dataclass(frozen=True)
class Ask:
    host: str
    path: str
    body: int  # bytes; -1: there is none
    chunked: bool

    def bytes(self) -> bytes:
        lines = [f"{'GET' if self.body < 0 else 'POST'} {self.path} HTTP/1.1", f"Host: {self.host}"]
        if self.body < 0:
            return "\r\n".join([*lines, "", ""]).encode()
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            chunks = f"{self.body:x}\r\n{'x' * self.body}\r\n" if self.body else ""
            return "\r\n".join([*lines, "", f"{chunks}0\r\n\r\n"]).encode()
        lines.append(f"Content-Length: {self.body}")
        return "\r\n".join([*lines, "", "x" * self.body]).encode()


NAMES = st.sampled_from(["", "/a", "/a/b", "/b", "/%61", "/a%2Fb", "/ab"])
PLACES = st.lists(
    st.builds(
        Place,
        st.sampled_from(["", "a.example", "*.example"]),
        st.sampled_from(["", "/a", "/a/b", "/b"]),
        st.integers(0, 2),
    ),
    min_size=2,
    max_size=6,
    unique_by=lambda place: (place.host, place.path),
)
ASKS = st.lists(
    st.builds(
        Ask,
        st.sampled_from(["a.example", "A.example:80", "b.a.example", "other"]),
        st.builds("{}{}".format, NAMES, st.sampled_from(["/", "/x", "/x?y"])),
        st.sampled_from([-1, -1, -1, 0, 5, 20000]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def expected(places: Sequence[Place], ask: Ask) -> int:
    """The group that answers, or the status with which none does."""
    name = ask.host.partition(":")[0].lower()
    path = unquote(ask.path.partition("?")[0])

    def fits(place: Place) -> bool:
        if place.host.startswith("*"):
            return name.endswith(place.host[1:]) and name != place.host[2:]
        return place.host in ("", name)

    hosts = [place for place in places if fits(place)]
    for order in (lambda h: h and h[0] != "*", lambda h: h and h[0] == "*", lambda h: not h):
        found = [
            place
            for place in hosts
            if order(place.host) and (path + "/").startswith(place.path + "/")
        ]
        if found:
            return max(found, key=lambda place: len(place.path)).group
    return 404 if hosts else 421


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(PLACES, ASKS, st.lists(st.integers(0, 200), max_size=6))
def test_each_request_is_answered_by_its_group(
    places: list[Place], asks: list[Ask], cuts: list[int]
) -> None:
    """Whatever the mounts, wherever what is sent is cut, and however much is sent ahead."""
    places.sort(key=lambda place: place.group)
    with grouped(places) as server:
        left = list(asks)
        while left:
            with Client(server.address) as client:
                data, at = b"".join(ask.bytes() for ask in left), 0
                for cut in cuts:
                    client.send(data[at : at + cut])
                    at += cut
                client.send(data[at:])
                closed = False
                while left and not closed:
                    ask = left.pop(0)
                    response = client.receive()
                    closed = response.get("Connection") == "close"
                    wanted = expected(places, ask)
                    if wanted >= 400:
                        assert response.status == wanted
                    else:
                        assert response.status == 200
                        assert response.body[:1] == str(wanted).encode()
