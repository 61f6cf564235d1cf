"""Under a service manager: what it is told, and the sockets that it passes."""

import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolsrv.supervisor.notify import Notify
from tests.client import Client
from tests.server import ROOT, Server
from tests.test_reload import Site

pytestmark = pytest.mark.once

Start = Callable[..., Server]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(str(tmp_path / "notify"))
        opened.settimeout(20)
        yield opened


def told(manager: socket.socket, name: str) -> str:
    """The next value of this name; others are skipped."""
    while True:
        for line in manager.recv(4096).decode().split("\n"):
            key, _, value = line.partition("=")
            if key == name:
                return value


def test_a_service_manager_is_told(server: Start, site: Site, manager: socket.socket) -> None:
    options = site.options
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "400000"}
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    changing = server("changing:app", **{**options, "env": env}, allow_errors="reload failed")
    assert told(manager, "READY") == "1"
    assert "threads busy" in told(manager, "STATUS")
    assert told(manager, "WATCHDOG") == "1"
    site.write(2)
    changing.terminate(signal.SIGHUP)
    assert int(told(manager, "MONOTONIC_USEC")) > 0
    assert told(manager, "READY") == "1"
    site.write_code("1 / 0")
    changing.terminate(signal.SIGHUP)
    assert told(manager, "RELOADING") == "1"
    assert told(manager, "READY") == "1"
    changing.terminate()
    assert told(manager, "STOPPING") == "1"
    assert changing.wait() == 0


def test_the_watchdog_is_told_of_progress_only(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}
    notify = Notify(environ, 1)
    assert environ == {}
    for now, moves in ((1.0, True), (1.5, True), (2.0, False), (3.0, True)):
        notify.tick(now, lambda moves=moves: moves, lambda: "fine")
    notify.close()
    said = [manager.recv(100).decode() for _ in range(3)]
    assert said == ["STATUS=fine\nWATCHDOG=1", "STATUS=fine", "STATUS=fine\nWATCHDOG=1"]


def test_the_watchdog_of_another_process_is_not_ours(manager: socket.socket) -> None:
    environ = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "2000000",
        "WATCHDOG_PID": "7",
    }
    notify = Notify(environ, 1)
    notify.tick(1.0, lambda: True, lambda: "fine")
    notify.close()
    assert manager.recv(100) == b"STATUS=fine"


def test_without_a_manager_nothing_is_due() -> None:
    notify = Notify({}, 1)
    assert notify.deadline() is None
    notify.ready()
    notify.close()


PASSING = """
import os, socket, sys
opened = socket.create_server(("127.0.0.1", 0))
os.dup2(opened.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="http")
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_sockets_are_taken_from_the_service_manager(server: Start) -> None:
    probe = server(
        "tests.apps.hello:app", through=[sys.executable, "-c", PASSING], bind="127.0.0.1:8000"
    )
    with Client(probe.address) as client:
        assert client.get("/").status == 200
    assert probe.address[1] != 8000


def test_sockets_that_are_passed_and_not_used_are_in_nobodys_hands(server: Start) -> None:
    """Once they were open in all processes, and in what the application executes."""
    probe = server("tests.apps.hello:app", through=[sys.executable, "-c", PASSING])
    probe.wait_for_log("POOL509 fd://3 was passed")
    listeners = sum("socket:" in held for held in probe.descriptors())
    with Client(probe.address) as client:
        assert client.get("/").status == 200
    plain = server("tests.apps.hello:app")
    assert listeners == sum("socket:" in held for held in plain.descriptors())


def test_a_passed_socket_without_a_file_has_a_name_that_can_be_read(server: Start) -> None:
    name = f"poolsrv-{uuid.uuid4().hex}"
    passing = PASSING.replace(
        'socket.create_server(("127.0.0.1", 0))', "socket.socket(socket.AF_UNIX)"
    ).replace("os.dup2", f'opened.bind("\\0{name}"); opened.listen(); os.dup2')
    probe = server(
        "tests.apps.hello:app", through=[sys.executable, "-c", passing], bind="127.0.0.1:8000"
    )
    assert probe.printed("application") == [f"unix:@{name}"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_service_file(tmp_path: Path) -> None:
    text = (ROOT / "dist" / "poolsrv.service").read_text()
    unit = tmp_path / "poolsrv.service"
    unit.write_text(text.replace("/srv/shop/venv/bin/poolsrv", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    newer = "Failed to parse service type, ignoring: notify-reload"  # to systemd before 253
    said = [line for line in done.stderr.splitlines() if not line.endswith(newer)]
    assert (done.returncode, said) == (0, [])
