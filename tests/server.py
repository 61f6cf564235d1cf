"""A real server for a test: `python -m poolsrv serve` in a session of its own.

Ports are chosen by the kernel and read from what the server prints. The
session tells which processes belong to the server, orphans included, so that
a test can require that none is left.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import Fact, wait_until

ROOT = Path(__file__).parent.parent
PRINTED = re.compile(
    r'^(?:\{")?(application|metrics|status)(?:": "| )([^\s"]+)(?:"\})?$', re.MULTILINE
)
ERROR_LINE = re.compile(r"^\S+ \S+ \S+ (?:ERROR|CRITICAL) .*$", re.MULTILINE)

# The samples of a scrape: (name, labels) -> value.
Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat, as far as the tests ask."""

    pid: int
    parent: int
    session: int
    state: str
    name: str

    @property
    def is_zombie(self) -> bool:
        return self.state in "ZX"


def processes() -> list[Process]:
    """Every process of the machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        name, _, rest = stat.partition("(")[2].rpartition(")")
        state, parent, _group, session = rest.split()[:4]
        found.append(Process(int(entry.name), int(parent), int(session), state, name))
    return found


def arguments(options: dict[str, object]) -> list[str]:
    """Keyword options as flags: `keep_alive_timeout="1s"` is `--keep-alive-timeout 1s`."""
    flags: list[str] = []
    for name, value in options.items():
        flag = name.rstrip("_").replace("_", "-")
        match value:
            case True:
                flags.append(f"--{flag}")
            case False:
                flags.append(f"--no-{flag}")
            case list() | tuple():
                flags += [part for item in value for part in (f"--{flag}", str(item))]
            case _:
                flags += [f"--{flag}", str(value)]
    return flags


ENDPOINTS: dict[str, object] = {"bind": "127.0.0.1:0", "admin": "127.0.0.1:0"}


class Server:
    """A running server. Made by `serving`, which also ends it."""

    def __init__(
        self,
        app: str,
        directory: Path,
        env: dict[str, str],
        options: dict[str, object],
        through: Sequence[str] = (),
    ) -> None:
        serve = [
            sys.executable,
            "-m",
            "poolsrv",
            "serve",
            *filter(None, [app]),
            *arguments(ENDPOINTS | options),
        ]
        given = os.environ | {"PROBE_DIR": str(directory)} | env
        self.start([*through, *serve], directory, given, folder=ROOT)

    def start(
        self, command: Sequence[str], directory: Path, env: dict[str, str], folder: Path
    ) -> None:
        """Run the command in the folder, with its log in the directory."""
        self.log_path = directory / f"server-{uuid.uuid4().hex[:8]}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.session = self.process.pid
        self._followed = 0  # how many supervisors have left their place to another

    # What it says

    def log(self) -> str:
        return self.log_path.read_text(errors="backslashreplace")

    def log_since(self, mark: int) -> str:
        """What was logged after `mark = len(server.log())`."""
        return self.log()[mark:]

    def errors(self) -> list[str]:
        return ERROR_LINE.findall(self.log())

    def wait_until(self, condition: Callable[[], Fact | None], deadline: float = 60.0) -> Fact:
        """As waiting.wait_until; fails with the log attached."""
        return wait_until(condition, deadline, message=self.log)

    def wait_for_log(self, pattern: str, since: int = 0, deadline: float = 60.0) -> re.Match[str]:
        expression = re.compile(pattern, re.MULTILINE)
        return self.wait_until(lambda: expression.search(self.log_since(since)), deadline)

    # Where it is

    def printed(self, what: str) -> list[str]:
        """The addresses printed for `application`, `metrics` or `status`."""
        return [url for name, url in PRINTED.findall(self.log()) if name == what]

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return self.printed("application")[0].rstrip("/")

    @property
    def admin_url(self) -> str:
        return self.printed("metrics")[0].removesuffix("/metrics")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    # What it consists of

    def processes(self) -> list[Process]:
        """The processes of the tree, zombies included, orphans too."""
        return [process for process in processes() if process.session == self.session]

    def living(self) -> list[Process]:
        return [process for process in self.processes() if not process.is_zombie]

    def exporter(self) -> int:
        (pid,) = self.named("pool:exporter")
        return pid

    def templates(self) -> list[int]:
        """The pids of the templates, oldest first."""
        return self.named("pool:tmpl-")

    def named(self, name: str) -> list[int]:
        """The pids of the processes whose name begins so."""
        return sorted(process.pid for process in self.living() if process.name.startswith(name))

    def workers(self) -> list[int]:
        """The pids of the workers that are ready, by slot."""
        rows = self.status()["workers"]
        return [row["pid"] for row in rows if row["state"] == "ready"]

    def descriptors(self, pid: int | None = None) -> list[str]:
        """What the supervisor, or another of its processes, holds open."""
        held = []
        for entry in Path(f"/proc/{pid or self.pid}/fd").iterdir():
            try:
                held.append(str(entry.readlink()))
            except FileNotFoundError:
                continue  # closed while we looked
        return sorted(held)

    # What it measures

    def admin(self, path: str) -> bytes:
        with urllib.request.urlopen(self.admin_url + path, timeout=10) as response:
            body: bytes = response.read()
        return body

    def status(self) -> dict[str, Any]:
        page: dict[str, Any] = json.loads(self.admin("/status.json"))
        return page

    def metrics(self) -> Metrics:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.admin("/metrics").decode())
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name which have these labels; 0 if there is none."""
        wanted = labels.items()
        return sum(
            value
            for (other, own), value in self.metrics().items()
            if other == name and own >= wanted
        )

    def wait_for_metric(self, value: float, name: str, **labels: str) -> None:
        self.wait_until(lambda: self.metric(name, **labels) == value)

    # What is done to it

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process of the tree, and to no other."""
        assert pid in [process.pid for process in self.processes()]
        os.kill(pid, number)

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.kill(self.pid, number)

    def follow(self, pid: int) -> None:
        """After an upgrade: the supervisor has this pid now, and the one before it ends."""
        before, self.pid = self.pid, pid
        self._followed += 1
        self.wait_until(lambda: before not in self.pids())
        assert self.log().count("poolsrv has stopped") == self._followed, self.log()

    def pids(self) -> list[int]:
        return [process.pid for process in self.living()]

    def wait(self, deadline: float = 20) -> int:
        """Its exit status, once it has ended: sooner than --graceful-timeout would have it."""
        self.wait_until(lambda: self.process.poll() is not None, deadline)
        if self._followed:  # no child of ours: it says so itself
            self.wait_until(lambda: self.pid not in self.pids(), deadline)
            assert self.log().count("poolsrv has stopped") == self._followed + 1, self.log()
        return self.process.returncode

    def stop(self, deadline: float = 20) -> int:
        self.terminate()
        return self.wait(deadline)

    def wait_until_serving(self) -> None:
        def serving() -> bool:
            assert self.process.poll() is None, self.log()
            return bool(self.printed("application"))

        self.wait_until(serving)

    def end(self) -> None:
        """Kill what is left of it."""
        for process in self.living():
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended while we looked
        self.process.wait()


def run_to_end(app: str, directory: Path, **options: object) -> tuple[int, str]:
    """Run a server that cannot start: its exit status and its output.

    When it ends, none of its processes is left.
    """
    server = Server(app, directory, {}, options)
    try:
        status = server.wait()
        server.wait_until(lambda: not server.living())
        assert not server.printed("application"), server.log()
        return status, server.log()
    finally:
        server.end()


@contextmanager
def serving(
    app: str,
    directory: Path,
    *,
    env: dict[str, str] | None = None,
    allow_errors: str | None = None,
    through: Sequence[str] = (),
    **options: object,
) -> Iterator[Server]:
    """A server for the time of the block, which then must end as it should.

    `through` is a command that starts it, such as `prlimit --nofile=256`.

    It is stopped with SIGTERM (unless the test has ended it) and then: its
    exit status is 0, none of its processes is left, its supervisor held no
    descriptor more than at the start, and its log has no ERROR line but
    those that `allow_errors`, a regular expression, finds.
    """
    server = Server(app, directory, env or {}, options, through)
    try:
        server.wait_until_serving()
        held = server.descriptors()
        yield server
        if server.pid in server.pids():
            server.wait_until(lambda: len(server.descriptors()) <= len(held))
            assert server.stop() == 0, server.log()
            server.wait_until(lambda: not server.living())
        unasked = [
            line
            for line in server.errors()
            if allow_errors is None or not re.search(allow_errors, line)
        ]
        assert not unasked, server.log()
    finally:
        server.end()
