"""Applications that give no sign of life: what ends them, and what their clients see."""

import http.client
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.server import Server, serving

APP = "tests.apps.hanging:application"
HUNG = "no sign of life|does not come back|lost=1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(
        APP,
        tmp_path,
        processes=1,
        threads=4,
        request_timeout="1s",
        interrupt_timeout="0.5s",
        graceful_timeout="3s",
        allow_errors=HUNG,
    ) as server:
        yield server


def get(server: Server, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(*server.address, timeout=20)) as connection:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()


def read_all(client: socket.socket) -> None:
    while client.recv(1000):
        pass


def test_python_code_that_hangs_is_interrupted_and_its_thread_serves_on(server: Server) -> None:
    (worker,) = server.workers()
    assert get(server, "/loop") == (504, b"504 Gateway Timeout\n")
    said = server.wait_for_log(r"no sign of life.*(\n    .*)+")[0]
    assert re.search(r"request=\S+ method=GET path=/loop age=\d+\.\d+s queued=\d+\.\d+s", said)
    assert "in _loop" in said
    for _ in range(8):  # on each thread
        assert get(server, "/") == (200, b"fine")
    assert server.workers() == [worker]
    assert server.metric("poolsrv_requests_timed_out_total", outcome="interrupted") == 1


def test_an_answer_that_has_begun_is_cut(server: Server) -> None:
    with closing(http.client.HTTPConnection(*server.address, timeout=20)) as connection:
        connection.request("GET", "/begun")
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as error:
            response.read()
    assert error.value.partial == b"begun"


def test_an_answer_without_a_length_is_cut_with_a_reset(server: Server) -> None:
    with socket.create_connection(server.address, timeout=20) as client:
        client.sendall(b"GET /begun HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            read_all(client)


@pytest.mark.parametrize("path", ["/sleep", "/read", "/lock", "/swallow"])
def test_a_thread_that_is_stuck_is_lost_and_its_worker_replaced(server: Server, path: str) -> None:
    (worker,) = server.workers()
    began = time.monotonic()
    assert get(server, path) == (504, b"504 Gateway Timeout\n")
    assert time.monotonic() - began >= 1.5
    server.wait_for_log("does not come back")
    server.wait_until(lambda: worker not in server.workers() and server.workers())
    assert get(server, "/") == (200, b"fine")
    assert server.metric("poolsrv_requests_timed_out_total", outcome="lost") == 1


def test_a_lost_answer_that_has_begun_is_cut(server: Server) -> None:
    with socket.create_connection(server.address, timeout=20) as client:
        client.sendall(b"GET /begun/sleep HTTP/1.1\r\nHost: here\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_other_requests_of_a_worker_with_a_lost_thread_finish(server: Server) -> None:
    with (
        closing(http.client.HTTPConnection(*server.address, timeout=20)) as patient,
        socket.create_connection(server.address, timeout=20) as client,
    ):
        client.sendall(b"GET /sleep HTTP/1.1\r\nHost: here\r\n\r\n")
        server.wait_for_log("no sign of life")
        patient.request("GET", "/patient")
        assert client.recv(1000).startswith(b"HTTP/1.1 504 ")
        response = patient.getresponse()
        assert (response.status, response.read()) == (200, b"fine")


def test_a_stream_that_yields_lives_on(server: Server) -> None:
    assert get(server, "/slowly") == (200, b"piece" * 20)


def test_an_application_that_reads_its_input_lives_on(server: Server) -> None:
    assert get(server, "/upload", b"x" * 20) == (200, b"20")


def test_an_application_changes_the_timeout_of_a_request(server: Server) -> None:
    assert get(server, "/patient") == (200, b"fine")
    began = time.monotonic()
    assert get(server, "/impatient")[0] == 504
    impatient = time.monotonic() - began
    # The next request has the server's again.
    assert get(server, "/loop")[0] == 504
    assert impatient < time.monotonic() - began - impatient


def test_an_application_may_answer_after_the_interruption(server: Server) -> None:
    assert get(server, "/cleaned") == (200, b"cleaned up")
    assert get(server, "/") == (200, b"fine")


def test_a_worker_whose_interpreter_is_kept_is_dumped_and_replaced(tmp_path: Path) -> None:
    with serving(
        APP,
        tmp_path,
        processes=1,
        threads=2,
        request_timeout="0",
        watchdog_timeout="1s",
        allow_errors="interpreter|lost=1",
    ) as server:
        (worker,) = server.workers()
        assert get(server, "/regex") == (504, b"504 Gateway Timeout\n")
        said = server.wait_for_log(r"keeps the interpreter.*(\n    .*)+")[0]
        assert len(re.findall(r"hanging.py.* in _regex", said)) == 1
        server.wait_until(lambda: server.workers() not in ([], [worker]))
        assert get(server, "/") == (200, b"fine")
        assert server.metric("poolsrv_worker_restarts_total", reason="hang") == 1


def test_a_worker_that_is_busy_is_no_case_for_the_watchdog(tmp_path: Path) -> None:
    with serving(
        APP, tmp_path, processes=1, threads=2, request_timeout="0", watchdog_timeout="0.4s"
    ) as server:
        (worker,) = server.workers()
        assert get(server, "/patient") == (200, b"fine")
        assert get(server, "/busy") == (200, b"fine")
        assert server.workers() == [worker]
