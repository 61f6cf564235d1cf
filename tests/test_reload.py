"""Reload with real processes: new code, no request lost, a failure that changes nothing."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from poolsrv import changes
from poolsrv.errors import ConfigError
from poolsrv.settings.rows import Settings
from tests.client import Client
from tests.server import Server
from tests.waiting import wait_until

Start = Callable[..., Server]

APP = """
NUMBER = {number}

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % NUMBER]
"""


class Site:
    """An application in a folder of its own, whose code a test replaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(1)

    def write(self, number: int) -> None:
        self.write_code(APP.format(number=number))

    def write_code(self, code: str) -> None:
        new = self.folder / "new"
        new.write_text(code)
        new.rename(self.folder / "changing.py")

    @property
    def options(self) -> dict[str, object]:
        # Code that changes twice a second must not be taken from a .pyc of that second.
        return {"pythonpath": self.folder, "env": {"PYTHONDONTWRITEBYTECODE": "1"}}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


def answer(server: Server) -> bytes:
    with Client(server.address) as client:
        return client.get("/").body


def reload(server: Server, generation: int) -> None:
    """Have it reload, and wait until only that generation is there."""
    server.terminate(signal.SIGHUP)
    server.wait_until(lambda: generations(server) == {generation})


def generations(server: Server) -> set[int]:
    return {row["generation"] for row in server.status()["workers"]}


class Kept:
    """Clients on kept connections that ask without a pause, and count every answer."""

    def __init__(self, server: Server, clients: int) -> None:
        self.server = server
        self.answers = [0] * clients
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]

    def __enter__(self) -> "Kept":
        for thread in self._threads:
            thread.start()
        self.wait_for(2)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Until every client has had so many more answers."""
        wanted = [answers + more for answers in self.answers]
        self.server.wait_until(
            lambda: (
                self.failures
                or all(have >= want for have, want in zip(self.answers, wanted, strict=True))
            ),
            deadline=30,
        )

    def _run(self, number: int) -> None:
        try:
            with Client(self.server.address) as client:
                while not self._stop.is_set():
                    response = client.get("/")
                    assert (response.status, response.get("Connection")) == (200, None)
                    self.answers[number] += 1
        except (AssertionError, OSError) as error:
            self.failures.append(repr(error))


@pytest.mark.parametrize("preload", [True, False])
def test_a_reload_serves_the_new_code(server: Start, site: Site, preload: bool) -> None:
    changing = server("changing:app", processes=2, preload=preload, **site.options)
    assert answer(changing) == b"1"
    for generation in (2, 3):
        site.write(generation)
        reload(changing, generation)
        assert answer(changing) == b"%d" % generation
    assert changing.metric("poolsrv_reloads_total", outcome="done") == 2
    assert changing.metric("poolsrv_generation") == 3
    changing.wait_until(lambda: len(changing.templates()) == 1)


def test_no_kept_connection_notices_a_reload(server: Start, site: Site) -> None:
    changing = server("changing:app", processes=2, threads=4, **site.options)
    with Kept(changing, clients=8) as clients:
        for generation in range(2, 8):
            site.write(generation)
            reload(changing, generation)
            clients.wait_for(2)
        assert clients.failures == []
    assert answer(changing) == b"7"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def app(", "SyntaxError"),
        ("import os\nos._exit(7)", "exited with status 7"),
        ("import os, signal\nos.kill(os.getpid(), 35)", "signal 35"),
    ],
)
@pytest.mark.parametrize("preload", [True, False])
def test_code_that_cannot_be_loaded_changes_nothing(
    server: Start, site: Site, code: str, reason: str, preload: bool
) -> None:
    changing = server(
        "changing:app", processes=2, preload=preload, allow_errors=".", **site.options
    )
    workers = changing.workers()
    with Kept(changing, clients=4) as clients:
        site.write_code(code)
        changing.terminate(signal.SIGHUP)
        changing.wait_for_metric(1, "poolsrv_reloads_total", outcome="failed")
        clients.wait_for(10)
        assert clients.failures == []
    assert reason in changing.log()
    assert changing.workers() == workers
    changing.wait_until(lambda: len(changing.templates()) == 1)
    site.write(2)
    changing.terminate(signal.SIGHUP)
    changing.wait_until(lambda: generations(changing) == {3})
    assert answer(changing) == b"2"


def test_reloads_while_one_runs_are_one_more(server: Start, site: Site, tmp_path: Path) -> None:
    changing = server("changing:app", processes=1, **site.options)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    site.write_code(f"open({str(gate)!r}).read()\n" + APP.format(number=1))
    changing.terminate(signal.SIGHUP)
    with gate.open("w"):  # it loads, until this ends
        for said in range(2, 7):
            changing.terminate(signal.SIGHUP)
            changing.wait_until(lambda said=said: changing.log().count("SIGHUP: loading") == said)
        site.write(2)
    changing.wait_until(lambda: answer(changing) == b"2")
    changing.wait_until(lambda: len(changing.templates()) == 1)
    assert changing.metric("poolsrv_reloads_total", outcome="done") == 2


def test_a_change_of_code_reloads_and_a_broken_one_changes_nothing(
    server: Start, site: Site
) -> None:
    changing = server(
        "changing:app",
        processes=2,
        chdir=site.folder,
        reload_on_change=True,
        allow_errors="reload failed",
        **site.options,
    )
    changing.wait_for_log("code reload the application; watched: ")

    def serves(code: str, body: bytes) -> bool:
        site.write_code(code)  # again: whoever is just about to watch does not see the first
        return answer(changing) == body

    changing.wait_until(lambda: serves(APP.format(number=2), b"2"))
    changing.wait_until(lambda: len(changing.templates()) == 1)
    with Kept(changing, clients=4) as clients:
        failed = changing.metric("poolsrv_reloads_total", outcome="failed")
        site.write_code("def app(")
        changing.wait_for_metric(failed + 1, "poolsrv_reloads_total", outcome="failed")
        clients.wait_for(2)
        assert answer(changing) == b"2"
        site.write(3)
        changing.wait_until(lambda: answer(changing) == b"3")
        assert clients.failures == []
    (watcher,) = changing.named("pool:watcher")
    changing.wait_until(lambda: len(changing.templates()) == 1)
    assert changing.stop() == 0
    assert not Path(f"/proc/{watcher}").exists()


def test_a_watcher_that_ends_is_said(server: Start, site: Site) -> None:
    changing = server(
        "changing:app",
        processes=1,
        chdir=site.folder,
        reload_on_change=True,
        allow_errors="changes of code are not seen",
        **site.options,
    )
    (watcher,) = changing.wait_until(lambda: changing.named("pool:watcher"))
    held = len(changing.descriptors())
    changing.kill(watcher)
    changing.wait_for_log("POOL416 .* was ended by SIGKILL")
    changing.wait_until(lambda: len(changing.descriptors()) < held)
    assert watcher not in [process.pid for process in changing.processes()]
    assert answer(changing) == b"1"


def test_watching_without_the_library_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"poolsrv\[watch\]"):
        changes.require()


def test_the_folders_that_are_watched(tmp_path: Path) -> None:
    for name in ("site/package", "other", "scripts"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "scripts" / "app.wsgi").touch()
    given = Settings(
        application=str(tmp_path / "scripts" / "app.wsgi"),
        chdir="site",
        pythonpath=("package", "../other", "none"),
    )
    found = [tmp_path / name for name in ("other", "scripts", "site")]
    assert changes.folders(given, str(tmp_path)) == found


def test_a_stop_during_a_reload(server: Start, site: Site) -> None:
    changing = server("changing:app", processes=2, **site.options)
    site.write_code("import time; time.sleep(60)")
    changing.terminate(signal.SIGHUP)
    changing.wait_until(lambda: len(generations(changing)) == 2)
    assert changing.stop() == 0


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_a_stop_during_the_first_start(site: Site, tmp_path: Path, preload: str) -> None:
    loads = tmp_path / "loads"
    site.write_code(f"open({str(loads)!r}, 'w').close(); import time; time.sleep(600)")
    command = [sys.executable, "-m", "poolsrv", "serve", "changing:app", preload]
    command += ["--bind", "127.0.0.1:0", "--admin", "off", "--control", "off"]
    command += ["--pythonpath", str(site.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as starting:
        wait_until(loads.exists)
        starting.send_signal(signal.SIGTERM)
        said, log = starting.communicate(timeout=30)
    assert (starting.returncode, said) == (0, b"")
    assert b"ERROR" not in log


def test_settings_are_read_again_and_what_must_stay_is_named(
    server: Start, site: Site, tmp_path: Path
) -> None:
    file = tmp_path / "poolsrv.toml"
    file.write_text("server-header = true")
    changing = server(
        "changing:app", processes=1, config=file, allow_errors="reload failed", **site.options
    )

    def field() -> str | None:
        with Client(changing.address) as client:
            return client.get("/").get("Server")

    assert field() == "poolsrv"
    file.write_text("server-header = false\nbacklog = 77")
    reload(changing, 2)
    assert field() is None
    assert "a reload cannot change --backlog" in changing.log()
    file.write_text("server-header = 'perhaps'")
    changing.terminate(signal.SIGHUP)
    changing.wait_for_metric(1, "poolsrv_reloads_total", outcome="failed")
    assert "perhaps" in changing.log()
    file.write_text("")


def test_a_stopped_worker_of_the_old_generation_is_killed(server: Start, site: Site) -> None:
    changing = server(
        "changing:app", processes=1, graceful_timeout="1s", allow_errors=".", **site.options
    )
    (victim,) = changing.workers()
    changing.kill(victim, signal.SIGSTOP)
    reload(changing, 2)
    assert not Path(f"/proc/{victim}").exists()


def test_an_idle_connection_outlives_ten_generations(server: Start, site: Site) -> None:
    changing = server("changing:app", processes=1, threads=1, **site.options)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(changing.address)) for _ in range(8)]
        for generation in range(2, 6):
            site.write(generation)
            reload(changing, generation)
            for client in clients:
                assert client.get("/").body == b"%d" % generation
    assert os.path.exists(f"/proc/{changing.pid}")  # noqa: PTH110
