"""The commands for a running server, as a person and as a script uses them."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from poolsrv.between.control import Command, ask, find, listen
from poolsrv.errors import ControlError
from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import ROOT, Server
from tests.test_reload import Kept, Site, answer

pytestmark = pytest.mark.once

Start = Callable[..., Server]
PROBE = "tests.apps.probe:app"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Gate(tmp_path)) as made:
        yield made


def poolsrv(*words: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "poolsrv", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(path: Path, *words: object) -> Any:
    """What a script reads; the command must succeed."""
    done = poolsrv(*words, "--control", path, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_a_server_shows(server: Start, path: Path, gate: Gate) -> None:
    probe = server(PROBE, processes=2, threads=2, control=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Client(probe.address) as client:
        client.send(head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        assert told(path, "status")["server"]["pid"] == probe.pid
        assert {row["pid"] for row in told(path, "workers")} == set(probe.workers())
        (running,) = told(path, "requests")
        assert running["path"] == "/hold"
        assert told(path, "settings")["threads"] == "2"
        assert any(event["message"] == "worker is ready" for event in told(path, "events"))
        for words in (["status"], ["workers"], ["requests"], ["settings"], ["events"]):
            done = poolsrv(*words, "--control", path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout
        gate.release(1)
        assert client.receive().status == 200


def test_a_mistake_in_the_file_keeps_nobody_from_asking(
    server: Start, path: Path, tmp_path: Path
) -> None:
    probe = server(PROBE, processes=1, control=path)
    file = tmp_path / "mistaken.toml"
    file.write_text(f'control = "{path}"\nthreads = 0\nno-such-option = 1\n')
    done = poolsrv("status", "--config", file, "--json", POOLSRV_BIND="[")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["server"]["pid"] == probe.pid
    # What cannot be read might name another server.
    file.write_text("control =")
    done = poolsrv("stop", "--config", file)
    assert (done.returncode, "not a TOML file" in done.stderr) == (2, True)


def test_several_servers_have_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    running = [(Path("/a"), {"pid": 1, "application": "a:a"}), (Path("/b"), {"pid": 2})]
    monkeypatch.setattr("poolsrv.between.control.servers", lambda: running)
    with pytest.raises(ControlError) as raised:
        find("")
    assert "name one with --control PID:\n    1  a:a\n    2  " in str(raised.value)


def test_the_stacks_of_a_worker(server: Start, path: Path, gate: Gate) -> None:
    probe = server(PROBE, processes=2, threads=2, control=path)
    with Client(probe.address) as client:
        client.send(head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        found = told(path, "stacks")
        assert set(found) == {"0", "1"}
        assert sum("wait_at_gate" in text for text in found.values()) == 1
        gate.release(1)
        assert client.receive().status == 200
    assert poolsrv("stacks", 7, "--control", path).returncode == 5


def test_a_reload_that_is_waited_for(server: Start, path: Path, site: Site) -> None:
    changing = server(
        "changing:app", processes=2, control=path, allow_errors="the reload failed", **site.options
    )
    site.write(2)
    assert told(path, "reload") == {"error": "", "generation": 2}
    assert answer(changing) == b"2"
    site.write_code("import nothing_of_this_name")
    done = poolsrv("reload", "--control", path)
    assert done.returncode == 1
    assert "No module named 'nothing_of_this_name'" in done.stderr
    assert "changing.py" in done.stderr
    assert answer(changing) == b"2"
    site.write(3)
    assert told(path, "reload")["generation"] == 4


def test_workers_are_recycled_one_by_one_and_no_connection_notices(
    server: Start, path: Path, site: Site
) -> None:
    changing = server("changing:app", processes=2, threads=4, control=path, **site.options)
    before = set(changing.workers())
    with Kept(changing, clients=8) as clients:
        assert told(path, "recycle", "all") == {"error": "", "slots": [0, 1]}
        assert changing.metric("poolsrv_worker_restarts_total", reason="recycle") == 2
        clients.wait_for(2)
        assert clients.failures == []
    assert len(changing.workers()) == 2
    assert not before & set(changing.workers())
    assert poolsrv("recycle", 9, "--control", path).returncode == 5


def ready(server: Server) -> int:
    return [row["state"] for row in server.status()["workers"]].count("ready")


def test_scaling_under_load(server: Start, path: Path, site: Site) -> None:
    changing = server(
        "changing:app", processes=2, max_processes=6, threads=2, control=path, **site.options
    )
    with Kept(changing, clients=8) as clients:
        before = 2
        for count in (6, 1, 2):
            expected = {"error": "", "before": before, "wanted": count}
            assert told(path, "scale", count) == expected
            assert ready(changing) == count
            clients.wait_for(2)
            before = count
        assert clients.failures == []
    assert changing.metric("poolsrv_workers_configured") == 2
    done = poolsrv("scale", 7, "--control", path)
    assert done.returncode == 5
    assert "1 to 6" in done.stderr


@pytest.mark.parametrize("words", [["scale", 3], ["recycle", "all"]])
def test_a_worker_that_cannot_be_started_is_the_outcome(
    server: Start, path: Path, tmp_path: Path, words: list[object]
) -> None:
    code = "import os, pathlib\nif pathlib.Path({!r}).exists(): os._exit(7)\n"
    closed = tmp_path / "closed"
    (tmp_path / "starting.py").write_text(
        code.format(str(closed)) + "from tests.apps.hello import app\n"
    )
    probe = server(
        "starting:app",
        processes=1,
        max_processes=3,
        preload=False,
        control=path,
        pythonpath=tmp_path,
        allow_errors="exited with status 7",
    )
    before = probe.workers()
    closed.touch()
    done = poolsrv(*words, "--control", path)
    assert done.returncode == 1
    assert "a worker cannot be started" in done.stderr
    closed.unlink()
    # Without a new order: the old one stands.
    count = 3 if words[0] == "scale" else 1
    probe.wait_until(
        lambda: ready(probe) == count and probe.workers() != before,
        deadline=30,
    )
    assert told(path, "recycle", "all")["error"] == ""
    told(path, "scale", 1)


def test_a_client_that_cannot_be_taken_waits_and_nobody_spins(server: Start, path: Path) -> None:
    """Without a descriptor for it the supervisor once asked for it as fast as it could."""
    probe = server(PROBE, control=path)
    before = resource.prlimit(probe.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(probe.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    with subprocess.Popen(
        [sys.executable, "-m", "poolsrv", "status", "--control", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as waits:
        probe.wait_for_log("POOL417", deadline=20)
        rounds = probe.log().count("POOL417")
        probe.wait_until(lambda: probe.log().count("POOL417") > rounds)
        assert probe.metric("poolsrv_supervisor_faults_total") == 0
        resource.prlimit(probe.pid, resource.RLIMIT_NOFILE, before)
        assert "workers are ready" in waits.communicate(timeout=30)[0]
    assert probe.log().count("POOL417") < 20


def test_who_waits_for_an_order_is_told_of_the_end(
    server: Start, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        f"while pathlib.Path({str(tmp_path / 'closed')!r}).exists(): time.sleep(0.01)\n"
        "from tests.apps.hello import app\n"
    )
    probe = server("slow:app", processes=1, preload=False, control=path, pythonpath=tmp_path)
    (tmp_path / "closed").touch()
    command = [sys.executable, "-m", "poolsrv", "recycle", "0", "--control", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as waits:
        probe.wait_for_log("told to recycle")
        probe.terminate(signal.SIGTERM)
        assert "the server ends" in waits.communicate(timeout=30)[1]
        assert waits.returncode == 1
    assert probe.wait() == 0


def test_a_reload_while_scaling(server: Start, path: Path, site: Site) -> None:
    changing = server(
        "changing:app", processes=2, threads=2, max_processes=6, control=path, **site.options
    )
    with Kept(changing, clients=8) as clients:
        for body, count in ((b"2", 6), (b"3", 1), (b"4", 2)):
            site.write(int(body))
            changing.terminate(signal.SIGHUP)
            told(path, "scale", count)
            changing.wait_until(lambda body=body: answer(changing) == body)
            changing.wait_until(lambda count=count: ready(changing) == count)
        changing.wait_until(lambda: len(changing.workers()) == 2)
        changing.wait_until(lambda: len(changing.templates()) == 1)
        assert clients.failures == []


@pytest.mark.parametrize("words", [["stop"], ["stop", "--now"]])
def test_a_stop_waits_for_the_end(server: Start, path: Path, words: list[str]) -> None:
    probe = server(PROBE, processes=2, control=path, allow_errors="told to stop at once")
    assert told(path, *words)["pid"] == probe.pid
    assert probe.wait() == 0
    assert not path.exists()


def test_servers_are_told_apart(server: Start, tmp_path: Path) -> None:
    """By pid, or because there is only one."""
    private = tmp_path / "run"
    private.mkdir()
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(private), "TMPDIR": str(elsewhere)}
    first = server(PROBE, env=environ)
    (private / "poolsrv-1.sock").touch()
    assert poolsrv("status", "--control", first.pid, **environ).returncode == 0
    second = server(PROBE, env=environ)
    for probe in (first, second):
        done = poolsrv("status", "--json", "--control", probe.pid, **environ)
        assert json.loads(done.stdout)["server"]["pid"] == probe.pid
    done = poolsrv("status", **environ)
    assert done.returncode == 5
    assert f"{first.pid}  {PROBE}" in done.stderr
    assert f"{second.pid}  {PROBE}" in done.stderr


def test_no_server(tmp_path: Path) -> None:
    done = poolsrv("status", "--control", tmp_path / "none")
    assert done.returncode == 5
    assert "is the server running" in done.stderr


def test_a_server_without_control(server: Start, tmp_path: Path) -> None:
    probe = server(PROBE, control="off")
    done = poolsrv("status", "--control", probe.pid)
    assert done.returncode == 5
    other = server(PROBE, control=tmp_path / "no" / "such" / "folder")
    assert "there is no control socket" in other.log()


def test_the_socket_of_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "control"
    listen(path).close()
    with listen(path) as opened:
        with pytest.raises(FileExistsError):
            listen(path)
        assert opened.getsockname()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}\n",
        b"[1]\n",
        b"\xff\n",
        b'{"version": 2, "command": "stop", "arguments": {"now": true}}\n',
        b'{"version": 1, "command": "stop", "arguments": {}}\n',
        b'{"version": 1, "command": "__class__", "arguments": {}}\n',
        b'{"version": 1, "command": "scale", "arguments": {"processes": "many"}}\n',
        b'{"version": 1, "command": "scale", "arguments": {"processes": Infinity}}\n',
        b"[" * 60_000,
        b'{"version": 1, "command": "recycle", "arguments": {"slot": -1}}\n',
        b'{"version": 1, "command": "stacks", "arguments": {"slot": 99}}\n',
    ],
)
def test_what_is_no_command_ends_nothing(path: Path, line: bytes, server: Start) -> None:
    import socket

    probe = server(PROBE, processes=1, control=path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.send(line)
        client.shutdown(socket.SHUT_WR)
        said = client.recv(65536)
    assert not line or json.loads(said)["error"]
    assert ask(path, Command("hello")).result["pid"] == probe.pid


def test_events_are_no_more_than_a_socket_takes(path: Path) -> None:
    import logging
    import select

    from poolsrv.supervisor.control import Control, Served
    from poolsrv.supervisor.pool import Pool
    from poolsrv.supervisor.server import Server

    with listen(path) as listener, ThreadPoolExecutor() as executor:
        listener.setblocking(True)
        server = Server([Pool(1, 1, startup_timeout=1, graceful_timeout=1)])
        served = Served({}, -1, dict)
        control = Control(listener, server, served, lambda _: None, lambda *_: -1, lambda _: None)
        for number in range(200):  # as of workers that cannot load, again and again
            text = f"{number} " + "\u00e9" * 8_000
            control.events.emit(logging.makeLogRecord({"msg": text, "levelname": "ERROR"}))
        asked = executor.submit(ask, path, Command("events"), 10)
        client = control.accept()
        assert client is not None
        select.select([client], [], [], 10)
        assert not control.read(client)
        control.close(client)
        events = asked.result().result["events"]
    assert len(json.dumps(events)) < 200_000
    assert events[-1]["message"].startswith("199 ")


def test_clients_that_say_nothing_make_room(path: Path, server: Start) -> None:
    import socket
    from contextlib import ExitStack

    server(PROBE, processes=1, control=path)
    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.connect(str(path))
        assert ask(path, Command("hello")).result
        with pytest.raises(ControlError):
            ask(path.with_name("none"), Command("hello"))
