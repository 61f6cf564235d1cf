"""Connections that the application takes over: WebSockets by threads, and what may go wrong."""

import json
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import socketio
from simple_websocket import Client as WebSocket
from simple_websocket import ConnectionClosed

from tests.apps.gate import Gate
from tests.apps.taken import SWITCHED
from tests.client import Client, Response, head
from tests.server import Server
from tests.test_deploy import APACHE_MODULES, PROXIES, Proxy, configured, free_port
from tests.test_deploy import running as through

TAKEN = "tests.apps.taken:app"
FLASK_SOCK = "tests.apps.websocket_site:app"
SOCKET_IO = "tests.apps.socketio_site:app"

ASKS = ("Connection: keep-alive, Upgrade", "Upgrade: echo")
ASKS_WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket")
KEYED = (
    *ASKS_WEBSOCKET,
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)

Start = Callable[..., Server]


@contextmanager
def websocket(running: Server, path: str = "/echo") -> Iterator[WebSocket]:
    client = WebSocket(running.url.replace("http:", "ws:") + path)
    try:
        yield client
    finally:
        if client.connected:
            client.close()
        client.thread.join()


def echoes(client: WebSocket, text: str | bytes = "text") -> bool:
    client.send(text)
    return client.receive(timeout=5) == text


def ask(running: Server, path: str, *fields: str) -> Client:
    """A client that has asked for another protocol."""
    client = Client(running.address)
    client.send(head("GET", path, *(fields or ASKS)))
    return client


def switched(client: Client) -> None:
    """Receive the application's own head, and no byte more."""
    assert client._exactly(len(SWITCHED), Response()) == SWITCHED


def wait_until_left(running: Server) -> None:
    """No connection is taken over, and the thread is free again."""
    running.wait_for_metric(0, "poolsrv_connections", state="upgraded")
    running.wait_for_metric(0, "poolsrv_threads_busy")


@contextmanager
def ordinary_requests(running: Server) -> Iterator[list[int]]:
    """Beside what is tested, requests for / one after the other; how they were answered."""
    over = threading.Event()
    answers: list[int] = []

    def ask_on() -> None:
        with Client(running.address) as client:
            while not over.is_set():
                answers.append(client.get("/").status)

    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join()
    assert answers
    assert set(answers) == {200}


# Libraries


def test_flask_sock(server: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    running = server(FLASK_SOCK, access_log=log)
    with ordinary_requests(running), websocket(running) as one, websocket(running) as two:
        for number in range(200):
            assert echoes(one, f"message {number}")
            assert echoes(two, b"\0" * number)
        rows = [row for row in running.status()["running"] if row["state"] == "upgraded"]
        assert [row["path"] for row in rows] == ["/echo", "/echo"]
        assert all(row["age_seconds"] > 0 for row in rows)
        assert running.metric("poolsrv_connections", state="upgraded") == 2
        assert running.metric("poolsrv_request_oldest_seconds") < rows[0]["age_seconds"]
    wait_until_left(running)
    assert running.metric("poolsrv_connections_upgraded_total") == 2
    assert running.metric("poolsrv_requests_total", status_class="1xx") == 2
    assert sum('"GET /echo HTTP/1.1" 101 ' in line for line in log.read_text().splitlines()) == 2
    with websocket(running, "/once") as client:  # it ends by itself
        assert echoes(client)
        with pytest.raises(ConnectionClosed):
            client.receive(timeout=5)


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]])
def test_flask_socketio(server: Start, transports: list[str]) -> None:
    running = server(SOCKET_IO, threads=8)
    heard: list[str] = []
    with ordinary_requests(running), socketio.SimpleClient() as client:
        client.connect(running.url, transports=transports)
        for number in range(200):
            client.emit("message", f"message {number}")
            heard.append(client.receive(timeout=5)[1])
        assert client.client.eio.current_transport == "websocket"
    assert heard == [f"message {number}" for number in range(200)]
    wait_until_left(running)


# Proxies


def with_upgrade(config: str) -> str:
    return re.sub(r"(ProxyPass / http\S+)", r"\1 upgrade=websocket", config)


@pytest.mark.once
@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.program)
def test_proxies_pass_them_on(server: Start, tmp_path: Path, proxy: Proxy) -> None:
    if not shutil.which(proxy.program):
        pytest.skip(f"needs the package {proxy.program}")
    running = server(FLASK_SOCK, trust_proxy="127.0.0.1")
    guide = "websockets.md" if proxy.program == "nginx" else "deploy.md"
    port = free_port()
    config = with_upgrade(configured(proxy, port, running, guide))
    if proxy.program == "apache2":
        config += f"LoadModule proxy_wstunnel_module {APACHE_MODULES}/mod_proxy_wstunnel.so\n"
    command = proxy.command(tmp_path, config)
    with through(command, ("127.0.0.1", port), tmp_path / "proxy.log"):
        client = WebSocket(f"ws://127.0.0.1:{port}/echo")
        for number in range(200):
            assert echoes(client, f"message {number}")
        assert running.metric("poolsrv_connections", state="upgraded") == 1
        client.close()
        client.thread.join()
        wait_until_left(running)


# Workers that end


def test_a_reload_ends_them_and_who_comes_again_finds_the_new_code(server: Start) -> None:
    running = server(FLASK_SOCK)
    (old,) = running.workers()
    with ordinary_requests(running), websocket(running) as client:
        assert echoes(client)
        running.terminate(signal.SIGHUP)
        with pytest.raises(ConnectionClosed):
            client.receive(timeout=20)
        running.wait_until(lambda: running.workers() not in ([], [old]))
        running.wait_until(lambda: old not in [it.pid for it in running.living()])
        with websocket(running) as again:
            assert echoes(again)


def test_a_stop_ends_them(server: Start) -> None:
    running = server(FLASK_SOCK, graceful_timeout="60s")
    with websocket(running) as one, websocket(running) as two:
        assert echoes(one)
        assert echoes(two)
        assert running.stop(deadline=20) == 0


# Limits


def test_more_than_may_be_taken_over_are_refused(server: Start) -> None:
    running = server(FLASK_SOCK, upgraded_connections=2)
    with websocket(running) as one, websocket(running) as two:
        assert echoes(one)
        assert echoes(two)
        with ask(running, "/echo", *KEYED) as third:
            assert third.receive().status == 503
        assert running.metric("poolsrv_requests_refused_total", status="503") == 1
        assert "--upgraded-connections" in running.log()
        # What asks for another protocol is mostly content with this one.
        with Client(running.address) as client:
            assert client.get("/", "Connection: Upgrade", "Upgrade: h2c").status == 200
    wait_until_left(running)
    with websocket(running) as again:
        assert echoes(again)


def test_a_thread_is_left_for_requests(server: Start) -> None:
    running = server(FLASK_SOCK, threads=2)
    with websocket(running) as one, Client(running.address) as client:
        assert echoes(one)
        with ask(running, "/echo", *KEYED) as two:
            assert two.receive().status == 503
        assert client.get("/").status == 200


def test_one_thread_is_too_few_and_the_application_hears_why(server: Start) -> None:
    running = server(TAKEN, threads=1)
    with ask(running, "/tries", *ASKS_WEBSOCKET) as client:
        answer = client.receive()
        assert answer.status == 200
        assert b"raise --threads" in answer.body


def test_the_limit_holds_inside_the_application_as_well(server: Start) -> None:
    running = server(TAKEN, upgraded_connections=1)
    with ask(running, "/echo") as first:
        switched(first)
        with ask(running, "/tries") as second:
            assert b"--upgraded-connections" in second.receive().body


def test_time_limits_of_requests_do_not_hold_for_them(server: Start) -> None:
    running = server(TAKEN, request_timeout="100ms", allow_errors="gives no sign")
    with ask(running, "/echo") as taken:
        switched(taken)
        with ask(running, "/hangs") as younger:
            assert younger.receive().status == 504
        taken.send(b"still here")
        assert taken._exactly(10, Response()) == b"still here"


# Requests that stay requests


@pytest.mark.parametrize(
    "request_head",
    [
        head("GET", "/looks"),
        head("GET", "/looks", "Upgrade: websocket"),
        head("GET", "/looks", "Connection: close, upgrading", "Upgrade: websocket"),
        head("GET", "/looks", *ASKS, version="1.0"),
        head("GET", "/looks", *ASKS, "Content-Length: 1") + b"x",
        head("GET", "/looks", *ASKS, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("POST", "/looks", *ASKS),
    ],
)
def test_what_asks_for_nothing_else_is_offered_nothing(server: Start, request_head: bytes) -> None:
    with Client(server(TAKEN).address) as client:
        client.send(request_head)
        assert client.receive().body == b"None"


def test_none_can_be_taken_over_if_that_is_off(server: Start) -> None:
    running = server(TAKEN, upgraded_connections=0)
    with ask(running, "/looks", *ASKS_WEBSOCKET) as client:
        assert client.receive().body == b"None"


def test_who_does_not_use_it_has_a_plain_request(server: Start) -> None:
    running = server(TAKEN)
    with Client(running.address) as client:
        for _ in range(3):
            answer = client.get("/looks", *ASKS)
            assert answer.status == 200
            assert b"the first use takes it over" in answer.body
        assert client.get("/keeps", *ASKS).body == b"kept"
        assert b"before its end" in client.get("/late").body
        # And one that has begun to answer goes on with that.
        assert b"begun: the connection cannot" in client.get("/begun", *ASKS).body
    assert running.metric("poolsrv_connections_upgraded_total") == 0


# What is on the connection


def test_bytes_behind_the_head_are_not_lost(server: Start) -> None:
    running = server(TAKEN)
    with Client(running.address) as client:
        client.send(head("GET", "/ahead", *ASKS) + b"abcdefgh")
        switched_to = b"8 [b'a', b'a', b'bc', b'd', b'efgh'] 0 "
        assert client._exactly(len(switched_to), Response()) == switched_to
        client.send(b"behind")
        assert client.read_to_end() == b"behind"


@pytest.mark.parametrize("path", ["/echo", "/later"])
def test_the_answer_of_the_application_is_nobodys(server: Start, path: str) -> None:
    with ask(server(TAKEN), path) as client:
        switched(client)
        client.send(b"abc")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read_to_end() == b"abc"


@pytest.mark.parametrize("path", ["/writes", "/leaves"])
def test_nothing_is_added_to_what_was_sent(server: Start, path: str) -> None:
    running = server(TAKEN)
    with ask(running, path) as client:
        assert client.read_to_end() == SWITCHED
    wait_until_left(running)


def test_an_exception_is_logged_and_not_sent(server: Start) -> None:
    running = server(TAKEN, allow_errors="the application failed")
    with ask(running, "/fails") as client:
        assert client.read_to_end() == SWITCHED
    running.wait_for_log("ValueError: broken after it was taken over")
    wait_until_left(running)


def test_clients_that_vanish_leave_no_thread_behind(server: Start) -> None:
    running = server(FLASK_SOCK, threads=8)
    for _ in range(3):
        with ExitStack() as stack:
            for _ in range(7):
                client = stack.enter_context(ask(running, "/echo", *KEYED))
                assert client._until(b"\r\n\r\n", Response()).startswith(b"HTTP/1.1 101 ")
                client.send(b"\x81\xfe\x7d")  # half a frame
                client.reset()
        wait_until_left(running)


def test_hostile_frames_end_the_connection_and_nothing_else(server: Start) -> None:
    running = server(FLASK_SOCK, allow_errors="the application failed")
    chance = random.Random(12)
    hostile = [
        b"\x81\x05hello",  # not masked
        b"\xf1\x80\0\0\0\0",  # reserved bits
        b"\x89\xfe\xff\xff" + b"x" * 200,  # a ping that is too long
        b"\x81\xff" + b"\xff" * 8,  # 2^64 - 1 bytes
        b"\x80\x80\0\0\0\0",  # a continuation of nothing
        b"\x81\x82\0\0\0\0\xff\xfe",  # no UTF-8
        b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n",
        *(chance.randbytes(300) for _ in range(20)),
    ]
    for frames in hostile:
        with ask(running, "/echo", *KEYED) as client:
            client.send(frames)
            client.socket.shutdown(socket.SHUT_WR)
            assert b"\r\n\r\nHTTP/1.1" not in client.read_to_end()
    wait_until_left(running)
    with websocket(running) as client, Client(running.address) as plain:
        assert echoes(client)
        assert plain.get("/").status == 200


# Other processes


def test_a_child_of_the_application_holds_no_connection(server: Start, tmp_path: Path) -> None:
    with closing(Gate(tmp_path, "child")) as gate:
        running = server(TAKEN, allow_errors="ended by SIGKILL")
        with ask(running, "/forks") as client:
            switched(client)
            running.wait_until(gate.arrivals)
            assert (tmp_path / "found").read_text() in ("OSError", "BrokenPipeError")
            (worker,) = running.workers()
            running.kill(worker)  # its child alone lives
            assert client.read_to_end() == b""


def test_poolsrv_requests_shows_them(server: Start, tmp_path: Path) -> None:
    control = tmp_path / "control"
    running = server(FLASK_SOCK, control=control)
    with websocket(running) as client:
        assert echoes(client)
        command = [sys.executable, "-m", "poolsrv", "requests", "--control", str(control)]
        told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
        assert [row["state"] for row in json.loads(told.stdout)] == ["upgraded"]
