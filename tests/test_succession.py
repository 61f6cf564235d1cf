"""Upgrades with real processes: another supervisor takes the place, and no client notices."""

import contextlib
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from poolsrv.between import handover
from tests.apps.gate import Gate
from tests.client import Client, head
from tests.server import ROOT, Server, serving
from tests.test_operate import poolsrv, told
from tests.test_privileges import as_root, asked, status_of
from tests.test_reload import APP, Kept, Site, answer, generations

Start = Callable[..., Server]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


LOADS_LONG = """
import pathlib, time
open({loads!r}, "w").close()
while not pathlib.Path({goes_on!r}).exists():
    time.sleep(0.01)
"""


def upgrade(server: Server, path: Path) -> None:
    before = server.pid
    pid = told(path, "upgrade")["pid"]
    assert pid != before
    server.follow(pid)


def requests(server: Server) -> float:
    return server.metric("poolsrv_requests_total")


def test_nobody_notices_an_upgrade(server: Start, site: Site, path: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    changing = server(
        "changing:app", processes=2, threads=4, control=path, pid_file=pid_file, **site.options
    )
    first = changing.pid
    inode = path.stat().st_ino
    with Kept(changing, clients=8) as clients, ExitStack() as stack:
        idle = [stack.enter_context(Client(changing.address)) for _ in range(8)]
        for client in idle:
            assert client.get("/").body == b"1"
        counted = [requests(changing)]
        for generation in (2, 3):
            site.write(generation)
            upgrade(changing, path)
            assert pid_file.read_text() == f"{changing.pid}\n"
            assert path.stat().st_ino == inode
            counted.append(requests(changing))
            clients.wait_for(2)
            counted.append(requests(changing))
            assert generations(changing) == {generation}
            for client in idle:
                assert client.get("/").body == b"%d" % generation
        assert clients.failures == []
        assert counted == sorted(counted)
    assert not Path(f"/proc/{first}").exists() or first in [p.pid for p in changing.processes()]
    assert changing.metric("poolsrv_upgrades_total", outcome="done") == 2
    assert changing.metric("poolsrv_connections_inherited_total") >= 8
    asked = sum(clients.answers) + 8 * 3
    changing.wait_until(lambda: requests(changing) == asked)


@pytest.mark.parametrize(
    ("code", "said", "logged"),
    [
        ("1 / 0", "ZeroDivisionError", "ZeroDivisionError"),
        ("import os\nos._exit(7)", "ended while it loaded", "exited with status 7"),
    ],
)
def test_an_upgrade_that_fails_changes_nothing(
    server: Start, site: Site, path: Path, code: str, said: str, logged: str
) -> None:
    changing = server("changing:app", processes=2, control=path, allow_errors=".", **site.options)
    workers = changing.workers()
    with Kept(changing, clients=4) as clients:
        site.write_code(code)
        done = poolsrv("upgrade", "--control", path)
        assert done.returncode == 1
        assert said in done.stderr
        assert logged in changing.log()
        clients.wait_for(10)
        assert clients.failures == []
    assert changing.workers() == workers
    assert changing.metric("poolsrv_upgrades_total", outcome="failed") == 1
    site.write(2)
    upgrade(changing, path)
    assert answer(changing) == b"2"


def test_an_option_that_is_none_is_a_reason_that_is_told(
    server: Start, site: Site, path: Path
) -> None:
    file = site.folder / "poolsrv.toml"
    file.write_text("backlog = 2\n")
    changing = server("changing:app", control=path, allow_errors=".", config=file, **site.options)
    file.write_text('backlog = "two"\n')
    done = poolsrv("upgrade", "--control", path)
    assert done.returncode == 1
    assert "backlog" in done.stderr
    assert answer(changing) == b"1"


def test_a_pid_file_that_the_next_server_does_not_use_is_removed(
    server: Start, site: Site, path: Path, tmp_path: Path
) -> None:
    """Once it stayed, with a number that became another process's some day."""
    file, first, second = site.folder / "poolsrv.toml", tmp_path / "first", tmp_path / "second"
    file.write_text(f'pid-file = "{first}"\n')
    changing = server("changing:app", control=path, config=file, **site.options)
    file.write_text(f'pid-file = "{second}"\n')
    upgrade(changing, path)
    assert (first.exists(), second.read_text()) == (False, f"{changing.pid}\n")
    file.write_text("")
    upgrade(changing, path)
    assert not second.exists()


def starting(server: Server, path: Path) -> "subprocess.Popen[str]":
    """An upgrade whose new supervisor loads, and who waits for it."""
    command = [sys.executable, "-m", "poolsrv", "upgrade", "--control", str(path)]
    waits = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    server.wait_until(lambda: successors(server))
    return waits


def successors(server: Server) -> list[int]:
    """Those that have been started to take over, and live."""
    found = []
    for process in server.living():
        with contextlib.suppress(OSError):  # it has ended by now
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
            if process.parent == server.pid and handover.VARIABLE.encode() in environ:
                found.append(process.pid)
    return found


def successor(server: Server) -> int:
    (found,) = successors(server)
    return found


def test_one_that_is_late_ends_and_one_that_is_stopped_is_killed(
    server: Start, site: Site, path: Path
) -> None:
    changing = server(
        "changing:app",
        processes=1,
        control=path,
        startup_timeout="2s",
        allow_errors="upgrade failed",
        **site.options,
    )
    site.write_code("import time; time.sleep(600)")
    for stopped in (False, True):
        with starting(changing, path) as waits:
            if stopped:
                changing.kill(successor(changing), signal.SIGSTOP)
            said = waits.communicate(timeout=30)[1]
            assert waits.returncode == 1
            assert "was not ready within 2 s" in said
        changing.wait_until(lambda: not successors(changing))
    assert answer(changing) == b"1"


def test_a_successor_that_is_killed_is_no_loss(server: Start, site: Site, path: Path) -> None:
    changing = server(
        "changing:app", processes=1, control=path, allow_errors="upgrade failed", **site.options
    )
    site.write_code("import time; time.sleep(600)")
    with Kept(changing, clients=2) as clients, starting(changing, path) as waits:
        changing.kill(successor(changing))
        assert "was ended by SIGKILL" in waits.communicate(timeout=30)[1]
        clients.wait_for(2)
        assert clients.failures == []


def test_a_supervisor_that_has_no_descriptor_left_is_followed_all_the_same(
    server: Start, site: Site, path: Path
) -> None:
    """Once it had left its place by the time it missed one, and nobody served any more."""
    changing = server("changing:app", processes=1, control=path, allow_errors=".", **site.options)
    loads, goes_on = site.folder / "loads", site.folder / "goes_on"
    site.write_code(
        LOADS_LONG.format(loads=str(loads), goes_on=str(goes_on)) + APP.format(number=2)
    )
    with starting(changing, path) as waits:
        changing.wait_until(loads.exists, deadline=20)
        pid = successor(changing)
        resource.prlimit(changing.pid, resource.RLIMIT_NOFILE, (3, 4096))
        goes_on.touch()
        waits.communicate(timeout=30)
        assert waits.returncode == 0
    changing.follow(pid)
    assert answer(changing) == b"2"


def test_a_stop_during_an_upgrade(server: Start, site: Site, path: Path) -> None:
    changing = server("changing:app", processes=2, control=path, **site.options)
    site.write_code("import time; time.sleep(600)")
    with starting(changing, path) as waits:
        assert changing.stop() == 0
        assert "the server ends" in waits.communicate(timeout=30)[1]
    changing.wait_until(lambda: not changing.living())


def test_a_supervisor_that_is_killed_during_an_upgrade_leaves_nothing(
    server: Start, site: Site, path: Path
) -> None:
    changing = server(
        "changing:app", processes=1, control=path, allow_errors="POOL435|has ended", **site.options
    )
    site.write_code("import time; time.sleep(600)")
    with starting(changing, path) as waits:
        changing.kill(changing.pid)
        changing.wait_until(lambda: not changing.living())
        waits.communicate(timeout=30)
    path.unlink()


def test_what_runs_is_finished_and_what_comes_meanwhile_is_served(
    server: Start, path: Path, tmp_path: Path
) -> None:
    probe = server("tests.apps.probe:app", processes=1, threads=1, control=path)
    with closing(Gate(tmp_path)) as gate, ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(3)]
        clients[0].send(head("GET", "/hold?gate=gate"))
        probe.wait_until(gate.arrivals)
        clients[1].send(head("GET", "/x"))  # it waits for the only thread
        probe.wait_until(lambda: probe.status()["queue"]["length"] == 1)
        pid = told(path, "upgrade")["pid"]
        assert clients[1].receive().status == 200
        command = [sys.executable, "-m", "poolsrv", "upgrade", "--control", str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as waits:
            probe.wait_for_log("POOL439")
            probe.terminate()  # of the one that has left: it goes on finishing
            probe.wait_for_log("SIGTERM")
            gate.release(1)
            assert clients[0].receive().status == 200
            probe.follow(pid)
            said = waits.communicate(timeout=60)[0]
        taken = re.search(r"the supervisor with pid (\d+) has taken over", said)
        assert taken, probe.log()
        probe.follow(int(taken[1]))
        assert clients[2].get("/x").status == 200
        # The client of the old one counts as well.
        probe.wait_until(lambda: probe.metric("poolsrv_requests_total") == 3)


def test_a_number_of_workers_stays_and_a_reload_meanwhile_is_done(
    server: Start, site: Site, path: Path
) -> None:
    changing = server("changing:app", processes=1, max_processes=3, control=path, **site.options)
    told(path, "scale", 2)
    loads = site.folder / "loads"
    goes_on = site.folder / "goes_on"
    site.write_code(
        LOADS_LONG.format(loads=str(loads), goes_on=str(goes_on)) + APP.format(number=2)
    )
    with starting(changing, path) as waits:
        changing.wait_until(loads.exists)
        pid = successor(changing)
        changing.terminate(signal.SIGHUP)
        done = poolsrv("reload", "--control", path)
        assert (done.returncode, "an upgrade runs" in done.stderr) == (1, True)
        scaling = subprocess.Popen(
            [sys.executable, "-m", "poolsrv", "scale", "3", "--control", str(path)], cwd=ROOT
        )
        changing.wait_for_log("from 2 to 3 workers")
        site.write(3)
        goes_on.touch()
        waits.communicate(timeout=30)
        assert waits.returncode == 0
        scaling.wait(timeout=30)
    changing.follow(pid)
    changing.wait_until(lambda: answer(changing) == b"3")
    changing.wait_until(lambda: generations(changing) == {3})
    changing.wait_until(lambda: len(changing.workers()) == 3)
    told(path, "scale", 1)


def connect(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(10)
    opened.connect(str(path))
    return opened


def test_a_signal_upgrades_and_unix_sockets_stay(server: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    hello = server(bind=[f"unix:{path}", "127.0.0.1:0"], control="off")
    inode = path.stat().st_ino
    hello.terminate(signal.SIGUSR2)
    (pid,) = hello.wait_until(lambda: successors(hello))
    hello.wait_for_log("POOL434")
    hello.follow(pid)
    assert path.stat().st_ino == inode
    with closing(connect(path)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert hello.stop() == 0
    assert not path.exists()


def test_the_other_supervisor_is_not_known_to_the_application(
    server: Start, site: Site, path: Path
) -> None:
    names = 'str([name for name in os.environ if "POOLSRV" in name]).encode()'
    site.write_code("import os\n" + APP.format(number=1).replace('b"%d" % NUMBER', names))
    changing = server("changing:app", control=path, **site.options)
    upgrade(changing, path)
    assert answer(changing) == b"[]"
    sockets = [
        sum(held.startswith("socket:") for held in changing.descriptors(pid))
        for pid in (*changing.workers(), *changing.templates())
    ]
    upgrade(changing, path)
    again = [
        sum(held.startswith("socket:") for held in changing.descriptors(pid))
        for pid in (*changing.workers(), *changing.templates())
    ]
    assert again == sockets  # nothing is left open in those who are forked


def test_the_service_manager_learns_the_new_main_process(
    server: Start, site: Site, path: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        # A socket that is full is told nothing: the first word of how it goes is enough here.
        env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "600000000"}
        options = {**site.options, "env": env | {"PYTHONDONTWRITEBYTECODE": "1"}}
        changing = server("changing:app", control=path, allow_errors="upgrade failed", **options)
        assert said(manager, "READY=1") == "READY=1"
        site.write_code("1 / 0")
        assert poolsrv("upgrade", "--control", path).returncode == 1
        assert said(manager, "RELOADING=1").startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert said(manager, "READY=1") == "READY=1"
        site.write(2)
        upgrade(changing, path)
        assert said(manager, "RELOADING=1")
        assert said(manager, "READY=1") == f"MAINPID={changing.pid}\nREADY=1"
        assert said(manager, "READY=1") == "READY=1"  # of the new one, which is heard by now
        assert said(manager, "WATCHDOG=1").startswith("STATUS=")
        changing.terminate()
        assert said(manager, "STOPPING=1") == "STOPPING=1"
        assert changing.wait() == 0


def said(manager: socket.socket, line: str) -> str:
    """The next message with this line; others must be of how it goes."""
    while True:
        message = manager.recv(4096).decode()
        if line in message.split("\n"):
            return message
        assert message.startswith("STATUS="), message


def test_another_user_stays_another_user(tmp_path: Path) -> None:
    path = tmp_path / "control"
    application = "tests.apps.identity:application"
    with serving(
        application, tmp_path, through=as_root(), user="nobody", control=path, processes=1
    ) as server:
        before = asked(server)
        kept = status_of(server.pid)["CapPrm"]
        upgrade(server, path)
        assert {**asked(server), "pid": 0} == {**before, "pid": 0}
        assert status_of(server.pid)["CapPrm"] == kept
        limits = Path(f"/proc/{server.workers()[0]}/limits").read_text()
        ours = Path("/proc/self/limits").read_text()
        assert re.findall("Max open files.*", limits) == re.findall("Max open files.*", ours)


def test_a_service_whose_manager_is_not_told_is_not_upgraded(server: Start, path: Path) -> None:
    """systemd would end the new supervisor with the old one."""
    through = ("sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$@"', "sh")
    hello = server(control=path, through=through)
    done = poolsrv("upgrade", "--control", path)
    assert (done.returncode, "Type=notify" in done.stderr) == (1, True)
    assert hello.workers()


def test_process_1_of_a_container_says_that_it_cannot(server: Start, path: Path) -> None:
    through = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGTERM")
    if subprocess.run([*through, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    hello = server(control=path, through=through)
    done = poolsrv("upgrade", "--control", path)
    assert done.returncode == 1
    assert "process 1" in done.stderr
    assert poolsrv("stop", "--control", path).returncode == 0
    hello.wait()
