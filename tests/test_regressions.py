"""Faults that were found and mended: each test fails without its remedy."""

import itertools
import os
import re
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from poolsrv import _core
from poolsrv.between import messages
from poolsrv.supervisor.children import Child, Template
from poolsrv.supervisor.group import Parts
from poolsrv.supervisor.loop import Supervisor
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.server import Server as Machine
from poolsrv.supervisor.stacks import Stacks
from tests.apps.gate import Gate, wait_at_gate
from tests.client import Client, Truncated, head
from tests.server import Server

PROBE = "tests.apps.probe:app"
OWN = f"{__name__}:app"
KILLED = "worker was ended by|worker ended|template ended"
Start = Callable[..., Server]

_answered = itertools.count(1)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """`/count`: how many requests this process has had; the others say it in their names."""
    size = int(environ["QUERY_STRING"] or 0)
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    match environ["PATH_INFO"]:
        case "/count":
            sum(range(5000))  # what a small page costs
            return [b"%d" % next(_answered)]
        case "/compute":
            sum(range(100_000))  # milliseconds, and nothing to wait for
            return [b"computed"]
        case "/hold":
            wait_at_gate("gate")
            return [b"held"]
        case "/write":
            for _ in range(16):
                write(b"x" * size)
            return []
        case "/echo-after-a-byte":
            write(b"0")
            return [environ["wsgi.input"].read()]
        case "/read-then-give":
            environ["wsgi.input"].read()
            return [b"x" * size]
        case _:
            return [environ["wsgi.input"].read()]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path)) as made:
        yield made


def serves(server: Server, target: str = "/x") -> bytes:
    with Client(server.address) as client:
        response = client.get(target)
    assert response.status == 200
    return response.body


def template_of(server: Server) -> int:
    (pid,) = server.templates()
    return pid


# One connection must not keep a thread from all the others


def test_pipelining_without_a_pause_gives_way(server: Start) -> None:
    many = 5000
    counting = server(OWN, processes=1, threads=1)
    with Client(counting.address, timeout=60) as greedy:
        reader = threading.Thread(target=greedy.read_to_end)
        reader.start()
        greedy.send(head("GET", "/count") * many + head("GET", "/count", "Connection: close"))
        assert int(serves(counting, "/count")) < many // 2
        reader.join()
        assert greedy.received.count(b"HTTP/1.1 200 OK") == many + 1


def test_the_end_of_a_client_that_comes_with_its_last_bytes(server: Start, gate: Gate) -> None:
    """Both wait behind a busy thread, and one event tells of them."""
    probe = server(PROBE, processes=1, threads=1, header_timeout="60s")
    with Client(probe.address) as leaving, Client(probe.address) as busy:
        leaving.send(b"GET /x HTTP/1.1\r\n")
        probe.wait_for_metric(1, "poolsrv_connections", state="reading")
        busy.send(head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        leaving.send(b"Host: a\r\n")
        leaving.socket.shutdown(socket.SHUT_WR)
        gate.release(1)
        assert busy.receive().status == 200
        leaving.expect_end()


def test_the_end_of_a_client_that_comes_while_it_is_served(server: Start, gate: Gate) -> None:
    """Behind a piece of another request."""
    probe = server(PROBE, processes=1, threads=2, header_timeout="60s")
    with Client(probe.address) as leaving:
        leaving.send(head("GET", "/x") + head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        leaving.send(b"GET /x HTTP/1.1\r\n")
        leaving.socket.shutdown(socket.SHUT_WR)
        # That the worker has seen it: a thread is free to look.
        serves(probe)
        gate.release(1)
        assert [leaving.receive().status for _ in range(2)] == [200, 200]
        leaving.expect_end()


def test_write_waits_for_a_slow_reader(server: Start) -> None:
    """What the application writes does not pile up in memory."""
    slow = server(OWN, processes=1, threads=1, response_buffer="64KiB")
    with Client(slow.address) as client:
        client.send(head("GET", f"/write?{4 << 20}"))
        slow.wait_until(lambda: [row["state"] for row in slow.status()["running"]] == ["writing"])
        assert len(client.receive().body) == 64 << 20


# Descriptors


def test_connections_that_find_no_descriptor_leave_no_load(server: Start) -> None:
    probe = server(PROBE, processes=1, threads=1)
    (worker,) = probe.workers()
    serves(probe)
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, before[1]))
    with Client(probe.address) as client, pytest.raises(Truncated):
        client.get("/x")
    # From now on it goes up to the hard limit, for the moment in which they come.
    for _ in range(100):
        serves(probe)
    assert resource.prlimit(worker, resource.RLIMIT_NOFILE)[0] == 3
    resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
    serves(probe)


def test_clients_leave_descriptors_for_new_processes(server: Start) -> None:
    few = 256
    # The hard limit as well: the server takes all it may.
    probe = server(
        PROBE,
        processes=1,
        threads=1,
        allow_errors="exporter ended",
        through=["prlimit", f"--nofile={few}:{few}"],
    )
    with ExitStack() as stack:
        for _ in range(2 * few):
            stack.enter_context(Client(probe.address))
        probe.wait_until(lambda: probe.metric("poolsrv_accept_errors_total"))
        victim = probe.exporter()
        probe.kill(victim)
        probe.wait_for_log("exporter ended")
        assert probe.metric("poolsrv_workers") >= 0
    serves(probe)


def test_a_flood_of_refusals_is_no_flood_of_warnings(server: Start) -> None:
    """A line a second says how many there were; none is lost."""
    probe = server(PROBE, log_level="warning", user=f"{os.getuid()}")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(300)]
        for client in clients:
            client.send(b"GET\r\n\r\n")
        for client in clients:
            assert client.receive().status == 400

    def warnings() -> list[str]:
        return re.findall(r"WARNING .* refused (\d+) requests?: \d+ x 400 ", probe.log())

    probe.wait_until(lambda: sum(map(int, warnings())) == len(clients))
    assert len(warnings()) < len(clients) / 10
    assert probe.log().count("WARNING") == len(warnings())


def test_a_flood_of_notes_is_no_flood_of_lines(server: Start) -> None:
    """Each body that cannot be kept is a line, but for what is beyond ten a second."""
    probe = server(PROBE, body_buffer="1KiB", env={"TMPDIR": "/does/not/exist"}, threads=4)
    began = time.monotonic()
    count = 200
    body = b"x" * 100_000
    for _ in range(count):
        with Client(probe.address) as client:
            client.send(head("POST", "/echo", "Content-Length: 100000") + body)
            assert client.receive().status == 500

    def said() -> tuple[int, int]:
        log = probe.log()
        lost = re.findall(r"WARNING .* (\d+) more messages like these were dropped", log)
        return log.count("cannot keep a request body"), sum(map(int, lost))

    probe.wait_until(lambda: sum(said()) >= count)
    lines, dropped = said()
    assert lines <= 10 * (time.monotonic() - began + 2)
    assert lines + dropped >= count  # that requests were refused is a line of its own


# Bodies that are streamed


@pytest.fixture
def streaming(server: Start) -> Server:
    return server(OWN, processes=1, threads=1, request_buffering=False)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_head_that_fills_its_buffer(streaming: Server) -> None:
    """It began with less than half of that, and leaves no byte of room for the body."""
    size = 1024
    with Client(streaming.address) as client:
        bare = head("POST", "/", "Transfer-Encoding: chunked", "X-Fill: ")
        fill = "x" * (size - len(bare))
        whole = head("POST", "/", "Transfer-Encoding: chunked", f"X-Fill: {fill}")
        client.send(whole[: size // 3])
        streaming.wait_for_metric(1, "poolsrv_connections", state="reading")
        client.send(whole[size // 3 :])
        client.send(chunk(b"body") + chunk(b""))
        assert client.receive().body == b"body"


def test_the_next_body_after_one_that_was_streamed(streaming: Server) -> None:
    """The thread remembered that its last body was over."""
    with Client(streaming.address) as slow, Client(streaming.address) as other:
        slow.send(head("POST", f"/read-then-give?{8 << 20}", "Content-Length: 1"))
        streaming.wait_until(lambda: streaming.status()["running"])
        slow.send(b"a" + head("GET", "/"))
        streaming.wait_for_metric(1, "poolsrv_connections", state="writing")
        other.send(head("POST", "/", "Content-Length: 4") + b"body")
        assert other.receive().body == b"body"
        assert len(slow.receive().body) == 8 << 20
        assert slow.receive().body == b""


def test_no_100_in_the_middle_of_an_answer(streaming: Server) -> None:
    with Client(streaming.address) as client:
        fields = ("Content-Length: 4", "Expect: 100-continue")
        client.send(head("POST", "/echo-after-a-byte", *fields))
        streaming.wait_until(lambda: streaming.status()["running"])
        client.send(b"body")
        assert client.receive().body == b"0body"


def test_threads_that_a_computing_application_left_idle_are_found(
    server: Start, gate: Gate
) -> None:
    """It was given two at a time; then four come at once, which block. That there was room
    for the others was seen a tick later, and nobody told those who waited for it."""
    changing = server(OWN, processes=1, threads=4)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(changing.address)) for _ in range(4)]
        for _ in range(100):
            assert clients[0].get("/compute").body == b"computed"
        for client in clients:
            client.send(head("GET", "/hold"))
        changing.wait_until(lambda: len(gate.arrivals()) == 4)
        gate.release(4)
        assert [client.receive().body for client in clients] == [b"held"] * 4


# Templates that die


def test_workers_outlive_their_template(server: Start) -> None:
    """And its successor replaces them: also one that dies before there is a successor."""
    probe = server(PROBE, processes=2, threads=1, allow_errors=KILLED)
    first, second = probe.workers()
    probe.kill(template_of(probe))
    probe.kill(first)
    probe.wait_until(lambda: len(probe.workers()) == 2 and first not in probe.workers())
    assert second in probe.workers()
    probe.kill(second)
    probe.wait_until(lambda: len(probe.workers()) == 2 and second not in probe.workers())
    serves(probe)


def test_a_server_whose_template_has_died_stops(server: Start) -> None:
    probe = server(PROBE, processes=2, threads=1, allow_errors=KILLED)
    probe.kill(template_of(probe))
    probe.wait_for_log("template ended")
    assert probe.stop() == 0


def test_a_template_that_dies_with_orders_unread() -> None:
    """That is a reset for who ordered, and no reason to lose what it had said."""

    def life(control: socket.socket) -> None:
        messages.send(control, messages.Loaded(1))
        signal.pause()

    template = Template(1, life)
    select.select([template.control], [], [])
    template.send(messages.Spawn([0]))
    template.child.signal(signal.SIGKILL)
    select.select([template.child.pidfd], [], [])
    assert list(template.received()) == [(messages.Loaded(1), None)]
    template.send(messages.Spawn([1]))
    assert template.child.reap().signal == signal.SIGKILL
    template.close()


class Script:
    """A dispatcher that says which descriptors are readable, and that it is drained once told
    to stop."""

    def __init__(self, readable: Callable[[], list[int]]) -> None:
        self._say = lambda: [(_core.EVENT_READABLE, fd) for fd in readable()]

    def wait(self, _deadline: float | None) -> list[tuple[int, ...]]:
        return self._say()

    def stop(self) -> None:
        self._say = lambda: [(_core.EVENT_DRAINED,)]

    def watch(self, _descriptor: int, _token: int) -> None: ...

    def unwatch(self, _descriptor: int) -> None: ...


@pytest.mark.parametrize("says_first", [True, False])
def test_a_template_that_ends_as_it_speaks(says_first: bool) -> None:
    """Its control socket and its pidfd are readable in one round, in either order. The
    second order, of one death in a thousand, ended the supervisor."""

    def life(_control: socket.socket) -> None: ...

    templates: list[Template] = []

    def start(generation: int) -> Template:
        templates.append(Template(generation, life))
        select.select([templates[-1].child.pidfd], [], [])
        return templates[-1]

    memory = _core.scoreboard_create(2, 1)

    def readable() -> list[int]:
        says, ends = templates[-1].control.fileno(), templates[-1].child.pidfd
        return [says, ends] if says_first else [ends, says]

    pool = Pool(1, 2, startup_timeout=60, graceful_timeout=60)
    dispatcher = cast(_core.Dispatcher, Script(readable))
    board = _core.Scoreboard(memory)
    parts = Parts("default", pool, dispatcher, board, [], start, Stacks([]))
    server = Machine([pool], exporter=False)
    supervisor = Supervisor(server, [parts], None, lambda: None, lambda: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finish = supervisor.run()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # its own are blocked for good
    assert (finish.status, "template exited" in finish.text) == (3, True)
    os.close(memory)


def test_a_child_that_does_not_end_is_killed() -> None:
    """Once a template waited for a thread that the application had left in it, and all
    the server with it."""
    child = Child.start("endless", lambda: signal.pause())
    child.end(0.01)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
