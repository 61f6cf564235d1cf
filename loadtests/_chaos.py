"""Chaos: does a server stay whole while its processes are killed, stopped and replaced?

    python -m loadtests._chaos --seconds 120 --seed 1

Starts a server of its own (2 workers x 4 threads) under clients on kept
connections, whose requests each carry a token that the answer must have. Twice
a second something happens, drawn by the seed: a worker, a template or the
exporter is killed or stopped for a moment, the server reloads, recycles or
scales. Then all is left in peace, and this must be so, or the exit status is 1:

- no client ever got an answer that was not its own;
- as many workers serve as are wanted, of one generation, in a short time;
- every gauge of connections is 0, no descriptor is left more than at the start,
  no process or zombie but the server's own;
- the supervisor met no fault, and it ends with status 0.
"""

import argparse
import collections
import json
import os
import random
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from poolsrv.control import Command, ask
from poolsrv.errors import ControlError

_WORKERS = 2
_CLIENTS = 32
_PAUSE = 0.5
_PEACE = 40.0


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Says the token of its request, now and then after a while."""
    token = environ["QUERY_STRING"]
    if token.endswith("0"):
        time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Token", token)])
    return [token.encode()]


class Target:
    """The server, as the chaos sees it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.control = folder / "control"
        words = "--bind 127.0.0.1:0 --admin 127.0.0.1:0 --threads 4 --graceful-timeout 5s"
        options = [f"--processes={_WORKERS}", "--max-processes=4", f"--control={self.control}"]
        with self.log.open("w") as log:
            serve = [sys.executable, "-m", "poolsrv", "serve", f"{__spec__.name}:application"]
            self.process = subprocess.Popen(
                [*serve, *words.split(), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(lambda: bool(self._printed("status")))
        host, port = self._printed("application").removeprefix("http://").split(":")
        self.address = (host, int(port))

    def _printed(self, what: str) -> str:
        found = re.search(rf"^{what} (http\S+)$", self.log.read_text(), re.MULTILINE)
        return found[1] if found else ""

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self._printed("status") + path, timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("status.json"))
        return found

    def processes(self) -> Iterator[tuple[int, str, str]]:
        """Pid, name and state of each process of the server but the supervisor."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and int(entry.name) != self.process.pid:
                    name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                    state, _, _, session, *_ = rest.split()
                    if int(session) == self.process.pid:
                        yield int(entry.name), name, state

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def until(condition: Callable[[], bool], patience: float = 20.0) -> bool:
    """Whether it came about in that time."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@dataclass
class Clients:
    """Connections that ask without a pause, each a request at a time."""

    address: tuple[str, int]
    answers: int = 0
    lost: int = 0
    wrong: list[bytes] = field(default_factory=list)
    slowest: float = 0.0

    def run(self, seconds: float) -> None:
        self._chooser = selectors.DefaultSelector()
        self._asked: dict[socket.socket, tuple[bytes, float]] = {}
        for _ in range(_CLIENTS):
            self._connect()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in self._chooser.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                self._read(key.fileobj)
        for connection in self._asked:
            connection.close()

    def _connect(self) -> None:
        connection = socket.create_connection(self.address, timeout=10)
        connection.setblocking(False)
        self._chooser.register(connection, selectors.EVENT_READ)
        self._ask(connection)

    def _ask(self, connection: socket.socket) -> None:
        token = b"%d-%d" % (connection.fileno(), self.answers + self.lost)
        self._asked[connection] = (token, time.monotonic())
        with suppress(OSError):  # it was ended: reading says so
            connection.send(b"GET /?" + token + b" HTTP/1.1\r\nHost: chaos\r\n\r\n")

    def _read(self, connection: socket.socket) -> None:
        token, asked = self._asked[connection]
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.lost += 1
            self._chooser.unregister(connection)
            del self._asked[connection]
            connection.close()
            self._connect()
            return
        self.answers += 1
        self.slowest = max(self.slowest, time.monotonic() - asked)
        if not data.startswith(b"HTTP/1.1 200") or not data.endswith(b"\r\n\r\n" + token):
            self.wrong.append(token + b" was answered " + data[:200])
        self._ask(connection)


class Monkey:
    """Does what the seed says until it is told to stop."""

    def __init__(self, target: Target, seed: int) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self._target = target
        self._chance = random.Random(seed)

    def run(self, stop: Event) -> None:
        deeds: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_template,
            self.kill_exporter,
            self.stop_worker,
            self.stop_template,
            self.reload,
            self.recycle,
            self.scale,
        ]
        while not stop.wait(_PAUSE):
            deed = self._chance.choice(deeds)
            self.done[deed.__name__] += 1
            with suppress(ProcessLookupError, ControlError, IndexError):
                deed()

    def kill_worker(self) -> None:
        os.kill(self._one("pool:worker"), signal.SIGKILL)

    def kill_template(self) -> None:
        os.kill(self._one("pool:tmpl"), signal.SIGKILL)

    def kill_exporter(self) -> None:
        os.kill(self._one("pool:exporter"), signal.SIGKILL)

    def stop_worker(self) -> None:
        self._stop_a_moment(self._one("pool:worker"))

    def stop_template(self) -> None:
        self._stop_a_moment(self._one("pool:tmpl"))

    def reload(self) -> None:
        self._target.process.send_signal(signal.SIGHUP)

    def recycle(self) -> None:
        ask(self._target.control, Command("recycle", {"slot": "all"}), timeout=10)

    def scale(self) -> None:
        count = self._chance.randint(1, 4)
        ask(self._target.control, Command("scale", {"processes": count}), timeout=10)

    def _one(self, name: str) -> int:
        return self._chance.choice(
            [p for p, n, _ in self._target.processes() if n.startswith(name)]
        )

    def _stop_a_moment(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.05, 0.5))
        os.kill(pid, signal.SIGCONT)


def is_at_peace(target: Target) -> bool:
    try:
        now = target.status()
    except OSError:
        return False
    ready = [worker["generation"] for worker in now["workers"] if worker["state"] == "ready"]
    whole = len(now["workers"]) == len(ready) == _WORKERS and len(set(ready)) == 1
    # Workers, one template, one exporter.
    return whole and len(list(target.processes())) == _WORKERS + 2


def judge(target: Target, clients: Clients, held: int) -> list[str]:
    """What is not as it must be."""
    faults = [found.decode("latin-1") for found in clients.wrong]
    ask(target.control, Command("scale", {"processes": _WORKERS}), timeout=10)
    if not until(lambda: is_at_peace(target), _PEACE):
        faults.append(f"no peace: {list(target.processes())}")
    if not until(lambda: sum(target.status()["connections"].values()) == 0):
        faults.append(f"connections: {target.status()['connections']}")
    if not until(lambda: target.descriptors() <= held):
        faults.append(f"descriptors: {target.descriptors()}, at the start {held}")
    if "poolsrv_supervisor_faults_total 0.0" not in target.get("metrics"):
        faults.append("the supervisor met faults")
    target.process.terminate()
    status = target.process.wait(30)
    if status != 0:
        faults.append(f"exit status {status}")
    if left := list(target.processes()):
        faults.append(f"processes are left: {left}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        until(lambda: is_at_peace(target))
        held = target.descriptors()
        clients, monkey, stop = Clients(target.address), Monkey(target, given.seed), Event()
        thread = Thread(target=monkey.run, args=(stop,))
        thread.start()
        clients.run(given.seconds)
        stop.set()
        thread.join()
        faults = judge(target, clients, held)
        print(f"{clients.answers} answers, {clients.lost} lost, slowest {clients.slowest:.2f} s")
        print(", ".join(f"{name} {count}" for name, count in sorted(monkey.done.items())))
        if faults:
            print("\n".join(faults))
            print(target.log.read_text()[-4000:])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
