"""`poolsrv serve --processes 0`: one process, which serves itself."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import Client
from tests.server import ROOT, Server, run_to_end
from tests.test_running import get, read_all
from tests.waiting import wait_until

Start = Callable[..., Server]

HANGING = "tests.apps.hanging:application"


def test_it_is_one_process(server: Start) -> None:
    running = server(processes=0)
    assert [process.pid for process in running.living()] == [running.pid]
    assert get(running.url)
    assert running.workers() == [running.pid]
    assert running.metric("poolsrv_requests_total") == 1
    assert running.admin("/readyz") == b"1 of 1 workers are ready\n"


def test_admin_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "poolsrv", "serve", "tests.apps.hello:app"]
    process = subprocess.Popen(
        [*command, "--processes", "0", "--bind", "127.0.0.1:0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("application http://")
    process.send_signal(signal.SIGINT)
    output, log = process.communicate(timeout=20)
    assert (output, process.returncode) == ("", 0), log


def test_maintenance(server: Start, tmp_path: Path) -> None:
    file = tmp_path / "down.html"
    running = server(processes=0, maintenance_file=file)
    with Client(running.address) as client:
        assert client.get("/").status == 200
        for words in ("back at noon", "back at two"):
            mark = len(running.log())
            file.write_text(words)
            running.wait_for_log("POOL414 .*down.html is there", mark)
            response = client.get("/")
            assert (response.status, response.body) == (503, words.encode())
            assert running.status()["server"]["maintenance"] is True
            file.unlink()
            running.wait_for_log("POOL415 maintenance is over", mark)
            assert client.get("/").status == 200


def test_its_files_are_below_the_folder_where_it_was_started(tmp_path: Path) -> None:
    """As those of a supervisor, whatever --chdir says."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "busy.txt").write_text("busy")
    (tmp_path / "down").touch()
    command = [sys.executable, "-m", "poolsrv", "serve", "tests.apps.hello:app"]
    options = ["--chdir", "inner", "--bind", "unix:a.sock", "--access-log", "a.log"]
    options += ["--maintenance-file", "down", "--error-pages", "503=busy.txt"]
    process = subprocess.Popen(
        [*command, "--processes", "0", "--pythonpath", str(ROOT), *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("application unix:")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "a.sock"))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(client).endswith(b"\r\n\r\nbusy")
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    assert " 503 " in (tmp_path / "a.log").read_text()
    assert not list((tmp_path / "inner").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_lets_finish_what_runs(
    server: Start, tmp_path: Path, number: signal.Signals
) -> None:
    running = server(HANGING, processes=0)
    client = socket.create_connection(running.address)
    client.sendall(b"GET /slowly HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    running.wait_until(lambda: running.metric("poolsrv_threads_busy") == 1)
    running.terminate(number)
    running.wait_for_log("POOL104")
    assert read_all(client).startswith(b"HTTP/1.1 200 ")
    assert running.wait() == 0


def test_a_second_one_ends_it_at_once(server: Start) -> None:
    running = server(HANGING, processes=0, allow_errors="POOL(303|304|604|605) ")
    client = socket.create_connection(running.address)
    client.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
    running.wait_until(lambda: running.metric("poolsrv_threads_busy") == 1)
    running.terminate()
    running.wait_for_log("POOL104")
    running.terminate()
    assert running.wait(10) == 0
    assert read_all(client).startswith(b"HTTP/1.1 504 ")


def test_what_hangs_does_not_keep_it_for_longer_than_the_graceful_timeout(server: Start) -> None:
    allowed = "POOL(303|604|605) "
    running = server(HANGING, processes=0, graceful_timeout="0.2", allow_errors=allowed)
    client = socket.create_connection(running.address)
    client.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
    running.wait_until(lambda: running.metric("poolsrv_threads_busy") == 1)
    assert running.stop() == 0
    assert "leaves threads behind: poolsrv-0" in running.log()
    assert read_all(client).startswith(b"HTTP/1.1 504 ")


def test_a_request_that_takes_too_long_is_interrupted(server: Start) -> None:
    running = server(HANGING, processes=0, request_timeout="0.2", allow_errors="POOL303 ")
    with Client(running.address) as client:
        assert client.get("/loop").status == 504
    assert get(f"{running.url}/fine")


def test_without_any_thread_it_ends(server: Start) -> None:
    """So that systemd or a container starts it anew."""
    running = server(
        HANGING,
        processes=0,
        threads=2,
        request_timeout="0.1",
        interrupt_timeout="0.1",
        allow_errors="POOL(303|604|605|607) ",
    )
    clients = [socket.create_connection(running.address) for _ in range(2)]
    for client in clients:
        client.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
    assert running.wait() == 1
    assert all(read_all(client).startswith(b"HTTP/1.1 504 ") for client in clients)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_it_says_that_it_cannot_reload(server: Start, number: signal.Signals) -> None:
    running = server(processes=0)
    running.terminate(number)
    running.wait_for_log(f"WARNING .* POOL603 {number.name}: .* cannot load code anew")
    assert get(running.url)


def test_handlers_of_the_application_are_taken_back(server: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "from tests.apps.hello import app\n"
    )
    running = server(f"{tmp_path}/app.py", processes=0)
    running.wait_for_log("WARNING .* POOL212 the application has set SIGTERM")
    assert running.stop() == 0


def test_usr1_opens_the_access_log_anew(server: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    running = server(processes=0, access_log=str(log))
    get(running.url)
    log.rename(tmp_path / "old")
    running.terminate(signal.SIGUSR1)
    wait_until(log.exists)
    get(running.url)
    wait_until(lambda: log.read_text().count("\n") == 1)
    assert (tmp_path / "old").read_text().count("\n") == 1


def test_commands_find_no_server(server: Start, tmp_path: Path) -> None:
    running = server(processes=0)
    result = subprocess.run(
        [sys.executable, "-m", "poolsrv", "reload", "--control", str(running.pid)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 5
    assert "poolsrv: error:" in result.stderr


def test_what_needs_a_supervisor_is_named(server: Start) -> None:
    running = server(processes=0, max_requests=10, preload=True)
    assert "WARNING server" in running.log()
    assert "POOL602 --preload, --max-requests: needs a supervisor" in running.log()


def test_rights_are_not_given_up_silently(tmp_path: Path) -> None:
    """A --user that has no effect would be a hole."""
    status, log = run_to_end("tests.apps.hello:app", tmp_path, processes=0, umask="0077")
    assert status == 2
    assert "umask: with processes 0" in log


def test_an_application_that_cannot_be_loaded_ends_it(tmp_path: Path) -> None:
    status, log = run_to_end("tests.apps.broken:app", tmp_path, processes=0)
    assert status == 3
    assert "Traceback" in log


def test_systemd_is_told(server: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        running = server(processes=0, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100).startswith(b"STATUS=0 of 4 threads busy")
        assert running.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


PROGRAM = """
import os, signal, sys, threading, urllib.request
import poolsrv

def app(environ, start_response):
    start_response("200 OK", [])
    os.kill(os.getpid(), signal.SIGTERM)
    return [sys.stdin.readline().encode()]

def client():
    with urllib.request.urlopen(url) as answer:
        print("answer", answer.read(), flush=True)

before = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
for _ in range(2):
    reader, writer = os.pipe()
    output = os.dup(1)
    os.dup2(writer, 1)
    os.close(writer)

    def talk():
        global url
        with open(reader) as lines:
            url = lines.readline().split()[1]
        os.dup2(output, 1)
        os.close(output)
        client()

    thread = threading.Thread(target=talk)
    thread.start()
    poolsrv.serve(app, processes=0, bind="127.0.0.1:0")
    thread.join()
assert before == (signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
print("goes on")
"""


def test_a_program_serves_and_goes_on() -> None:
    """Its standard input is the application's, as a debugger expects, and its signals are its own
    again."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout == "answer b'one\\n'\nanswer b'two\\n'\ngoes on\n", result.stderr


def test_only_the_main_thread_serves() -> None:
    import poolsrv
    from poolsrv.errors import ConfigError

    raised: list[BaseException] = []

    def life() -> None:
        try:
            poolsrv.serve(lambda *_: [], processes=0, bind="127.0.0.1:0", log_level="error")
        except ConfigError as error:
            raised.append(error)

    thread = threading.Thread(target=life)
    thread.start()
    thread.join()
    assert "poolsrv.running" in str(raised[0])
