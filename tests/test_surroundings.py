"""What the application does for itself, and what the machine does to us."""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poolsrv.settings.addresses import UnixAddress
from poolsrv.system.sockets import open_listener
from tests.client import Client
from tests.server import ROOT, Server, run_to_end
from tests.waiting import wait_until

Start = Callable[..., Server]

APP = "tests.apps.habits:app"


def get(address: tuple[str, int], target: str = "/") -> tuple[int, bytes]:
    with Client(address) as client:
        answer = client.get(target, "Connection: close")
    return answer.status, answer.body


# The application's logging


@pytest.mark.parametrize("when", ["import", "request"])
def test_the_applications_logging_does_not_silence_ours(server: Start, when: str) -> None:
    env = {"HABIT": "configure_logging"} if when == "import" else {}
    running = server(APP, processes=1, env=env, allow_errors="application failed|one")
    if when == "request":
        assert get(running.address, "/configure")[0] == 200
    assert get(running.address, "/fail")[0] == 500
    running.wait_for_log("ValueError: as asked")
    get(running.address, "/errors")
    running.wait_for_log("ERROR .* one request=\\S+\n      and two\n")


def test_a_message_of_the_application_is_one_record_with_its_level(server: Start) -> None:
    running = server(APP, processes=1)
    get(running.address, "/logging")
    running.wait_for_log("INFO .* said request=\\S+\n    more\n")


# Signals


@pytest.mark.parametrize("habit", ["handle_signals", "handle_by_asyncio", "reset_wakeup"])
@pytest.mark.parametrize("preload", [True, False])
def test_a_server_stops_whatever_the_application_does_with_signals(
    server: Start, habit: str, preload: bool
) -> None:
    running = server(
        APP, processes=1, preload=preload, env={"HABIT": habit}, graceful_timeout="60s"
    )
    place = {
        "handle_signals": r"SIGTERM \(handle_signals\.<locals>\.<lambda>, \S+habits\.py:\d+\)",
        "handle_by_asyncio": r"SIGTERM \(the default action\)",
        "reset_wakeup": "signal.set_wakeup_fd",
    }[habit]
    if not (preload and habit == "reset_wakeup"):  # a template needs none
        running.wait_for_log(f"WARNING .* the application has set .*{place}")
    assert get(running.address)[0] == 200
    assert running.stop() == 0


@pytest.mark.parametrize("preload", [True, False])
def test_an_exception_in_a_handler_ends_the_worker_with_its_reason(
    server: Start, preload: bool
) -> None:
    """Without its main thread it would know no time limit and no stop."""
    running = server(
        APP,
        processes=1,
        preload=preload,
        env={"HABIT": "raise_in_a_handler"},
        allow_errors="main thread|exited with status 1",
    )
    (worker,) = running.workers()
    running.kill(worker, signal.SIGUSR2)
    running.wait_for_log("CRITICAL worker 0")
    running.wait_until(lambda: running.workers() not in ([], [worker]))
    assert "ValueError: in a handler of the application" in running.log()
    assert get(running.address)[0] == 200


# Threads


def test_threads_that_are_none_are_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HABIT", "patch_threads")
    status, log = run_to_end(APP, tmp_path, processes=1)
    assert status == 3
    assert "take out gevent's monkey patching" in log


def test_threads_that_cannot_be_started_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HABIT", "start_no_threads")
    status, log = run_to_end(APP, tmp_path, processes=1, threads=4, startup_timeout="60s")
    assert status == 3
    assert "let a worker start 2 of 4 threads; raise the limit" in log


# The end of a worker


def test_what_the_application_has_written_is_there_when_a_worker_has_ended(
    server: Start, tmp_path: Path
) -> None:
    running = server(APP, processes=1, env={"HABIT": "keep_open"})
    assert get(running.address, "/keep")[0] == 200
    assert running.stop() == 0
    assert (tmp_path / "written").read_text() == "kept"


def test_a_thread_that_does_not_end_keeps_no_worker(server: Start, tmp_path: Path) -> None:
    """It is named, and what is to be done at exit is done."""
    running = server(
        APP,
        processes=1,
        env={"HABIT": "leave_a_thread"},
        graceful_timeout="8s",
    )
    assert running.stop() == 0
    assert "WARNING worker" in running.log()
    assert "do not end, and are left behind threads=idler" in running.log()
    assert "in idle\n" in running.log()  # where it is
    # Beside the workers that follow, an end takes second place.
    nice = os.getpriority(os.PRIO_PROCESS, 0) + 5
    assert (tmp_path / "at_exit").read_text() == f"done, niceness {min(nice, 19)}"


# Standard streams


@contextmanager
def piped(tmp_path: Path, *options: str, **streams: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A server on a Unix socket in `tmp_path`, with standard streams of the test's own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "poolsrv", "serve", APP, f"--bind=unix:{tmp_path}/s", *options],
        cwd=ROOT,
        env=os.environ | {"PROBE_DIR": str(tmp_path)},
        start_new_session=True,
        **({"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams),
    )
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(path: Path, target: str = "/") -> bytes:
    """The body of an answer on a Unix socket; nothing until somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return b""
        client.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_log_that_nobody_reads_stops_nobody(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    with piped(
        tmp_path, "--access-log=-", "--admin=off", "--processes=1", stdout=writer, stderr=writer
    ):
        pid = int(wait_until(lambda: ask(tmp_path / "s"), 20))
        for _ in range(5):
            assert int(ask(tmp_path / "s", "/much")) == pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: int(ask(tmp_path / "s", "/much") or pid) != pid, 20)
        # Who reads again is told what is missing.
        os.set_blocking(reader, False)
        seen = b""

        def told() -> bool:
            nonlocal seen
            try:
                seen += os.read(reader, 1 << 20)
            except BlockingIOError:
                ask(tmp_path / "s", "/errors")
            return re.search(rb"WARNING .* \d+ lines of this log were dropped", seen) is not None

        wait_until(told, 20)
    os.close(reader)
    os.close(writer)


def test_lines_that_nobody_reads_are_a_metric(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with piped(
        tmp_path,
        "--access-log=-",
        "--log-level=debug",
        f"--admin=unix:{tmp_path}/admin",
        "--processes=1",
        stdout=writer,
        stderr=writer,
    ) as process:
        wait_until(lambda: ask(tmp_path / "s"))
        assert lost_lines(tmp_path, "server") == 0

        def stuck() -> bool:
            ask(tmp_path / "s", "/much")
            return lost_lines(tmp_path, "server") > 0 and lost_lines(tmp_path, "access") > 0

        wait_until(stuck)
        before = lost_lines(tmp_path, "server")
        process.send_signal(signal.SIGALRM)  # a line of the supervisor's
        wait_until(lambda: lost_lines(tmp_path, "server") == before + 1)
        with socket.socket(socket.AF_UNIX) as client:  # and one of the exporter's
            client.connect(f"{tmp_path}/admin")
            client.sendall(b"GET /")
        wait_until(lambda: lost_lines(tmp_path, "server") == before + 2)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("option", ["--preload", "--no-preload", "--processes=0"])
def test_lines_that_are_lost_before_the_application_serves_are_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv("HABIT", "log_much")
    reader, writer = os.pipe()
    room = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    admin = f"--admin=unix:{tmp_path}/admin"
    with piped(tmp_path, admin, option, stdout=writer, stderr=writer):
        wait_until(lambda: ask(tmp_path / "s"))
        assert lost_lines(tmp_path, "server") >= 100 - room // 4000
    os.close(reader)
    os.close(writer)


def lost_lines(folder: Path, log: str) -> float:
    """What the metrics of the server in `folder` say."""
    metrics = ask(folder / "admin", "/metrics").decode()
    found = re.search(rf'log_lines_lost_total{{log="{log}"}} (\S+)', metrics)
    return float(found[1]) if found else 0


def test_the_address_is_on_standard_output_at_once(tmp_path: Path) -> None:
    with piped(tmp_path, "--admin=off", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"application unix:{tmp_path}/s\n".encode()
        process.stdout.close()


def test_an_access_log_on_the_socket_that_standard_output_is(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with piped(tmp_path, "--admin=off", "--access-log=/dev/stdout", stdout=theirs.fileno()), ours:
        ours.settimeout(20)
        wait_until(lambda: ask(tmp_path / "s"), 20)
        with ours.makefile() as lines:
            assert any("HTTP/1." in line for line in lines)
    theirs.close()


@pytest.mark.parametrize("preload", [True, False])
def test_what_the_application_prints_is_there_at_once_and_once(
    server: Start, preload: bool
) -> None:
    env = {"HABIT": "print_something", "PYTHONUNBUFFERED": ""}
    running = server(APP, processes=2, preload=preload, env=env)
    expected = 1 if preload else 2
    assert running.log().count("a line of the application\n") == expected
    assert running.stop() == 0
    assert running.log().count("and a part of one") == expected


def test_a_server_without_a_reader_of_its_output_serves(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with piped(tmp_path, "--admin=off", stdout=writer, stderr=writer):
        assert wait_until(lambda: ask(tmp_path / "s"), 20)
    os.close(writer)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_standard_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    command = f"exec {sys.executable} -m poolsrv serve {APP} --bind=unix:s --admin=off {closed}"
    env = os.environ | {"PROBE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env=env, start_new_session=True)
    try:
        pid = int(wait_until(lambda: ask(tmp_path / "s"), 20))
        for fd in range(3):
            assert "socket" not in str(Path(f"/proc/{pid}/fd/{fd}").readlink())
        process.terminate()
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_an_address_that_standard_output_cannot_encode(tmp_path: Path) -> None:
    path = tmp_path / "prüfung"
    process = subprocess.Popen(
        [sys.executable, "-m", "poolsrv", "serve", APP, f"--bind=unix:{path}", "--admin=off"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PROBE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert os.fsencode(path) in process.stdout.readline()
    process.terminate()
    assert process.wait(20) == 0
    process.stdout.close()


def test_an_access_log_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    status, log = run_to_end(APP, tmp_path, access_log=fifo)
    assert status == 2
    assert "nobody reads this FIFO" in log
    assert "start its reader first" in log


# Files


def test_the_socket_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = open_listener(UnixAddress(str(path)), 8)
    path.unlink()
    second = open_listener(UnixAddress(str(path)), 8)
    first.close()
    assert path.is_socket()
    second.close()
    assert not path.exists()
    third = open_listener(UnixAddress(str(path)), 8)
    second.close()
    assert path.is_socket()
    third.close()


def test_a_folder_that_a_deploy_has_replaced(server: Start, tmp_path: Path) -> None:
    folder = tmp_path / "current"

    def deploy(words: str) -> None:
        folder.mkdir()
        (folder / "site.wsgi").write_text(
            "def application(environ, start):\n"
            "    start('200 OK', [('Content-Type', 'text/plain')])\n"
            f"    return [b'{words}']\n"
        )

    deploy("old")
    running = server(
        "./site.wsgi",
        processes=1,
        through=["env", "-C", str(folder)],
        env={"PYTHONPATH": str(ROOT)},
        allow_errors="ended by SIGKILL",
    )
    assert get(running.address)[1] == b"old"
    shutil.move(folder, tmp_path / "previous")
    shutil.rmtree(tmp_path / "previous")
    deploy("new")
    running.kill(running.workers()[0])
    running.wait_until(lambda: get(running.address)[1] == b"new")


@pytest.mark.parametrize("way", ["cd", "chdir"])
def test_a_reload_follows_the_link_that_a_deploy_has_turned(
    server: Start, tmp_path: Path, way: str
) -> None:
    link = tmp_path / "current"

    def deploy(words: str) -> None:
        release = tmp_path / words
        release.mkdir()
        (release / "site.wsgi").write_text(
            "def application(environ, start):\n"
            "    start('200 OK', [('Content-Type', 'text/plain')])\n"
            f"    return [b'{words}']\n"
        )
        if way == "cd":
            options = f"server-header = {str(words == 'new').lower()}\n"
            (release / "poolsrv.toml").write_text(options)
        link.unlink(missing_ok=True)
        link.symlink_to(release)

    deploy("old")
    running = server(
        "./site.wsgi",
        processes=1,
        through=["env", "-C", str(link), f"PWD={link}"] if way == "cd" else [],
        env={"PYTHONPATH": str(ROOT)},
        allow_errors="ended by SIGKILL",
        **({"chdir": link} if way == "chdir" else {}),
    )
    deploy("new")
    running.kill(running.workers()[0])  # who is replaced meanwhile serves what the others do
    running.wait_for_log("ended by SIGKILL")
    assert get(running.address)[1] == b"old"
    shutil.rmtree(tmp_path / "old")
    running.terminate(signal.SIGHUP)
    running.wait_for_log("generation 2 has taken over")
    with Client(running.address) as client:
        answer = client.get("/")
    assert answer.body == b"new"
    assert "server" in {name.lower() for name, _ in answer.fields}


# The start, and what the kernel refuses

REFUSING = """
import errno, os, signal, sys, tempfile
def refuse(*_):
    raise OSError(errno.EPERM, "Operation not permitted")
def no_folder():
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory")
{patch}
from poolsrv.commands.cli import main
sys.argv[0] = "poolsrv"
main()
"""


def start_refused(patch: str, tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    code = REFUSING.format(patch=patch)
    return subprocess.Popen(
        [sys.executable, "-c", code, "serve", APP, f"--bind=unix:{tmp_path}/s", "--admin=off"],
        cwd=ROOT,
        env=os.environ | {"PROBE_DIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("call", ["os.memfd_create", "os.pidfd_open", "signal.pidfd_send_signal"])
def test_a_refusal_of_the_kernel_is_one_sentence_with_a_remedy(tmp_path: Path, call: str) -> None:
    refused = start_refused(f"{call} = refuse", tmp_path)
    _, said = refused.communicate(timeout=20)
    assert refused.returncode == 5
    name = call.partition(".")[2]
    assert said == (
        f"poolsrv: error: the kernel refuses {name}: Operation not permitted\n"
        "  allow it in the seccomp profile of the container or service, or use Linux 5.4 or newer\n"
    )


def test_no_folder_for_temporary_files_is_needed(tmp_path: Path) -> None:
    running = start_refused("tempfile._get_default_tempdir = no_folder", tmp_path)
    assert wait_until(lambda: ask(tmp_path / "s"), 20)
    running.terminate()
    running.communicate(timeout=20)
    assert running.returncode == 0


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failing_start_says_one_thing(tmp_path: Path, form: str, preload: bool) -> None:
    status, log = run_to_end(
        "tests.apps.broken:app", tmp_path, processes=2, preload=preload, log_format=form
    )
    assert status == 3
    assert log.count("Traceback") == 1
    assert "SIGKILL" not in log
    if form == "json":
        records = [json.loads(line) for line in log.splitlines()]
        assert [record["level"] for record in records][-1] == "critical"
        assert "Traceback" in records[-1]["message"]


def test_addresses_are_json_where_the_log_is(server: Start) -> None:
    running = server(APP, processes=1, log_format="json")
    running.stop()
    records = [json.loads(line) for line in running.log().splitlines()]
    assert "processes x" in records[0]["message"]
    assert {"application": running.url} in records
    assert records[-1]["message"] == "poolsrv has stopped"


def test_a_second_order_to_end_is_no_death(server: Start) -> None:
    running = server(APP, processes=2)
    workers = running.workers()
    for pid in [running.pid, *workers, running.pid]:
        os.kill(pid, signal.SIGTERM)
    assert running.wait() == 0
    assert "ended by SIGTERM" not in running.log()


def test_without_time_to_wait_an_idle_server_answers(server: Start) -> None:
    running = server(APP, processes=1, queue_timeout=0)
    for _ in range(10):
        assert get(running.address)[0] == 200


def test_each_process_says_in_ps_what_it_is(server: Start) -> None:
    running = server(APP, processes=1)
    names = {process.name for process in running.living()}
    roles = ("supervisor", "exporter", "tmpl-1", "worker-0", "keeper-0")
    assert names == {f"pool:{role}" for role in roles}
    pid = running.workers()[0]
    assert f"worker is ready slot=0 worker_pid={pid}" in running.log()
    lines = {process.pid: command_line(process.pid) for process in running.living()}
    assert lines.pop(running.pid).startswith(f"{sys.executable} -m poolsrv serve {APP} ")
    titles = ("exporter", "keeper 0", "template 1", "worker 0")
    assert sorted(lines.values()) == [f"poolsrv: {title} {APP}" for title in titles]


def command_line(pid: int) -> str:
    """As ps shows it."""
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return raw.rstrip(b"\0").replace(b"\0", b" ").decode()


def test_a_title_longer_than_the_command_line_is_cut(tmp_path: Path) -> None:
    code = "from poolsrv import _core; print(_core.set_title(b'x' * 9999), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"SECRET": "y" * 100},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        before = len(" ".join([sys.executable, "-c", code]))
        assert command_line(process.pid) == "x" * before
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"SECRET=" + b"y" * 100 in environment
        process.communicate(b"\n")


def test_a_log_is_one_descriptor_in_each_process(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with piped(tmp_path, "--processes=1", stderr=writer):
        pid = int(wait_until(lambda: ask(tmp_path / "s"), 20))
        pipe = Path(f"/proc/self/fd/{writer}").readlink()
        held = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert held.count(pipe) == 2  # and standard error itself
    os.close(reader)
    os.close(writer)
