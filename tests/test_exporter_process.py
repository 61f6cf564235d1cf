"""The exporter as a process of its own: what it answers, whom it outlives."""

import gzip
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest

from poolsrv import _core
from poolsrv.between.messages import END_EXPORTER
from poolsrv.exporter import run, server
from poolsrv.exporter.server import CONNECTIONS, HEAD_LIMIT
from tests.board import ABOUT, Board
from tests.waiting import wait_until


class Exporter:
    """A running exporter, the board it reads and the process it takes for the supervisor."""

    def __init__(self, listener: socket.socket) -> None:
        fd = _core.scoreboard_create(2, 4)
        self.board = Board(fd)
        self.board.spawn(0)
        self.address = listener.getsockname()
        self.family = listener.family
        # It waits for ever for the end of its input.
        self.supervisor = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        pidfd = os.pidfd_open(self.supervisor.pid)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        arguments = (listener, {"": fd}, pidfd, self.bell, ABOUT)
        self.process = get_context("fork").Process(target=run, args=arguments)
        self.process.start()
        self.stop = os.eventfd(0)
        self.loop = threading.Thread(target=_empty, args=(self.bell, self.stop))
        self.loop.start()
        listener.close()
        os.close(pidfd)
        os.close(fd)

    def connect(self) -> socket.socket:
        connection = socket.socket(self.family, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(self.address)
        return connection

    def send(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, fields and body of the answer; the connection ends after it."""
        with closing(self.connect()) as connection:
            connection.sendall(data)
            response = http.client.HTTPResponse(
                connection, method=data.split(b" ")[0].decode("latin-1")
            )
            response.begin()
            return response.status, dict(response.getheaders()), response.read()

    def get(
        self, target: str, *fields: str, method: str = "GET"
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields, "", ""]
        return self.send("\r\n".join(lines).encode())

    def hang(self) -> None:
        """From now on the supervisor's loop empties its bell no more."""
        os.eventfd_write(self.stop, 1)
        self.loop.join()

    def end(self) -> None:
        """Whatever it does, it is over."""
        self.hang()
        os.close(self.bell)
        os.close(self.stop)
        self.supervisor.kill()
        self.supervisor.communicate()
        self.process.kill()
        self.process.join()


def _empty(bell: int, stop: int) -> None:
    """What the supervisor's loop does with its bell."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    poll.register(stop, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == stop:
                return
            os.eventfd_read(bell)


@contextmanager
def exporting(listener: socket.socket) -> Iterator[Exporter]:
    exporter = Exporter(listener)
    try:
        yield exporter
    finally:
        exporter.end()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with exporting(socket.create_server(("127.0.0.1", 0))) as exporter:
        yield exporter


def test_metrics(exporter: Exporter) -> None:
    status, fields, body = exporter.get("/metrics")
    assert status == 200
    assert fields["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b'poolsrv_worker_up{worker="0"} 1.0\n' in body
    _, fields, body = exporter.get("/metrics?x", "Accept: application/openmetrics-text")
    assert fields["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_what_is_counted_shows_at_the_next_scrape(exporter: Exporter) -> None:
    line = b'poolsrv_requests_total{status_class="2xx"} %d.0\n'
    assert line % 0 in exporter.get("/metrics")[2]
    exporter.board.count(0, "requests", 5, "2xx")
    assert line % 5 in exporter.get("/metrics")[2]


def test_status(exporter: Exporter) -> None:
    status, fields, body = exporter.get("/")
    assert (status, fields["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert fields["Content-Security-Policy"].startswith("default-src 'none'")
    assert b"shop:app" in body
    status, fields, body = exporter.get("/status.json")
    assert (status, fields["Content-Type"]) == (200, "application/json")
    assert json.loads(body)["server"]["application"] == "shop:app"


def test_alive_and_ready(exporter: Exporter) -> None:
    assert exporter.get("/livez")[::2] == (200, b"ok\n")
    assert exporter.get("/readyz")[::2] == (200, b"1 of 2 workers are ready\n")
    exporter.board.supervisor("state", 2)
    assert exporter.get("/readyz")[::2] == (503, b"the server drains and will stop\n")
    assert exporter.get("/livez")[0] == 200


def test_head_answers_without_a_body(exporter: Exporter) -> None:
    status, fields, body = exporter.get("/livez", method="HEAD")
    assert (status, fields["Content-Length"], body) == (200, "3", b"")


def test_compressed_for_who_wants_it(exporter: Exporter) -> None:
    _, fields, body = exporter.get("/metrics", "Accept-Encoding: br, gzip;q=0.5")
    assert fields["Content-Encoding"] == "gzip"
    assert b"poolsrv_build_info" in gzip.decompress(body)
    for refusing in ("identity", "gzip;q=0", "gzip; q=0.000", "x-gzip-like"):
        _, fields, body = exporter.get("/metrics", f"Accept-Encoding: {refusing}")
        assert "Content-Encoding" not in fields
        assert b"poolsrv_build_info" in body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /../livez HTTP/1.1\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET  /  HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_LIMIT, 431),
        (b"GET /livez HTTP/1.0\r\nno colon\r\n: \r\n\r\n", 200),
    ],
)
def test_other_requests(exporter: Exporter, data: bytes, status: int) -> None:
    assert exporter.send(data)[0] == status


def test_405_names_what_is_allowed(exporter: Exporter) -> None:
    assert exporter.get("/", method="PUT")[1]["Allow"] == "GET, HEAD"


def test_clients_that_say_nothing_keep_nobody_waiting(exporter: Exporter) -> None:
    exporter.get("/livez")
    descriptors = Path(f"/proc/{exporter.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    with ExitStack() as stack:
        silent = [stack.enter_context(exporter.connect()) for _ in range(3 * CONNECTIONS)]
        assert exporter.get("/livez")[0] == 200
        # The oldest had to make room.
        assert silent[0].recv(1) == b""
        wait_until(lambda: len(list(descriptors.iterdir())) <= before + CONNECTIONS)


def test_a_client_that_is_too_slow_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEADLINE", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    with exporting(listener) as exporter, exporter.connect() as slow:
        slow.sendall(b"GET / HT")
        assert slow.recv(1) == b""


def test_a_client_that_goes_away_harms_nobody(exporter: Exporter) -> None:
    for data in (b"", b"GET /", b"GET /metrics HTTP/1.1\r\n\r\n"):
        connection = exporter.connect()
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    assert exporter.get("/livez")[0] == 200


def test_it_ends_when_told_even_with_a_silent_client(exporter: Exporter) -> None:
    with exporter.connect() as silent:
        exporter.get("/livez")
        assert exporter.process.pid is not None
        os.kill(exporter.process.pid, END_EXPORTER)
        exporter.process.join(10)
        assert exporter.process.exitcode == 0
        assert silent.recv(1) == b""


def test_it_ends_with_the_supervisor(exporter: Exporter) -> None:
    exporter.get("/livez")
    exporter.supervisor.kill()
    exporter.process.join(10)
    assert exporter.process.exitcode == 0


def test_it_leaves_other_signals_to_the_supervisor(exporter: Exporter) -> None:
    exporter.get("/livez")
    assert exporter.process.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(exporter.process.pid, number)
    assert exporter.get("/livez")[0] == 200


def test_signals_that_the_supervisor_has_blocked_reach_it() -> None:
    with ExitStack() as stack:
        signal.pthread_sigmask(signal.SIG_BLOCK, {END_EXPORTER})
        try:
            listener = socket.create_server(("127.0.0.1", 0))
            exporter = stack.enter_context(exporting(listener))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {END_EXPORTER})
        exporter.get("/livez")
        assert exporter.process.pid is not None
        os.kill(exporter.process.pid, END_EXPORTER)
        exporter.process.join(10)
        assert exporter.process.exitcode == 0


def test_a_supervisor_that_hangs_is_neither_alive_nor_ready(exporter: Exporter) -> None:
    exporter.hang()
    for path in ("/livez", "/readyz"):
        status, _, body = exporter.get(path)
        assert (status, b"does not answer" in body) == (503, True)
    assert exporter.get("/metrics")[0] == 200
    assert exporter.get("/")[0] == 200


@pytest.mark.parametrize("path", ["/", "/status.json"])
@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("localhost", 200),
        ("LOCALHOST:9464", 200),
        ("app.localhost:9464", 200),
        ("127.0.0.1:9464", 200),
        ("[::1]:9464", 200),
        ("[::1]", 200),
        ("poolsrv:9464", 200),  # as in a network of Docker's
        (socket.gethostname(), 200),
        ("rebound.example:9464", 421),
        ("127.0.0.1.rebound.example", 421),
        ("localhost.rebound.example", 421),
        ("rebound.example.", 421),
    ],
)
def test_pages_with_requests_are_shown_to_no_strangers_name(
    exporter: Exporter, path: str, host: str, wanted: int
) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert exporter.send(request)[0] == wanted


def test_it_serves_a_unix_socket(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "admin"))
    listener.listen()
    with exporting(listener) as exporter:
        assert exporter.get("/livez")[0] == 200
        # No browser gets there, so any name will do.
        assert exporter.send(b"GET / HTTP/1.1\r\nHost: any.example\r\n\r\n")[0] == 200
