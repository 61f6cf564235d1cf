"""Chaos: does a server stay whole while its processes are killed, stopped and replaced?

    make bench ARGS="chaos --duration 120 --seed 1"

Starts a server of its own (2 workers x 4 threads) under wrk and under clients on
kept connections, whose requests each carry a token that the answer must have; some
views fork. Twice a second something happens, drawn by the seed: a worker, a
template or the exporter is killed or stopped for a moment, or a keeper stopped while
its worker is killed, the server reloads,
recycles or scales, one of its processes finds no descriptors, no process can be
started for a while, or nobody reads its logs for some seconds. Then all is left in
peace, and this must be so, or the exit status is 1:

- no client ever got an answer that was not its own;
- as many workers serve as are wanted, of one generation, in a short time;
- every gauge is back at 0, no descriptor is left more than at the start,
  no process or zombie but the server's own;
- the supervisor met no fault but for want of descriptors, and it ends with status 0.
"""

import collections
import json
import multiprocessing
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

from poolsrv.between.control import Command, ask
from poolsrv.errors import ControlError

_WORKERS = 2
_CLIENTS = 32
_PAUSE = 0.5
_PEACE = 40.0
# Where the kernel limits processes of root as well (cgroups, version 1).
_PIDS = Path("/sys/fs/cgroup/pids")

# What is 0 where nothing goes on.
_NOT_AT_REST = re.compile(
    r"poolsrv_(queue_length|threads_busy|worker_buffered_bytes|worker_spooled_bytes"
    r"|request_oldest_seconds|connections(?={))\S* (?!0\.0$)"
)
# With its traceback.
_FAULT = re.compile(r"^\S+ \S+ \S+ ERROR   supervisor\S+ POOL110 .*\n(?:    .*\n)*", re.MULTILINE)


def _return(_token: str) -> bool:
    """Fork a child that comes back to the server's code."""
    return os.fork() == 0


def _leave(_token: str) -> None:
    if os.fork() == 0:
        raise SystemExit(3)


def _terminate(_token: str) -> None:
    helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    helper.start()
    helper.terminate()
    helper.join()


def _start_program(_token: str) -> None:
    subprocess.run(["true"], check=False)


_FORKS = {"10": _return, "30": _leave, "50": _terminate, "70": _start_program}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Says the token of its request, now and then after a while, or after a fork."""
    token = environ["QUERY_STRING"]
    if token.endswith("0"):
        time.sleep(0.005)
    with suppress(OSError, ChildProcessError):  # there may be no process, or no descriptor
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue  # the children that nobody has waited for
    with suppress(OSError):
        _FORKS.get(token[-2:], str)(token)
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Token", token)])
    return [token.encode()]


class Reader:
    """Reads what the server writes, into a file or away; and now and then it does not."""

    def __init__(self, reader: int, file: Path | None) -> None:
        self._reader = reader
        self._file = file.open("wb", buffering=0) if file else None
        self._goes_on = Event()
        self._goes_on.set()
        Thread(target=self._run, daemon=True).start()

    def pause(self, seconds: float) -> None:
        self._goes_on.clear()
        time.sleep(seconds)
        self._goes_on.set()

    def _run(self) -> None:
        while data := os.read(self._reader, 65536):
            if self._file:
                self._file.write(data)
            self._goes_on.wait()


class Target:
    """The server, as the chaos sees it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.control = folder / "control"
        reader, log = os.pipe()
        lines = folder / "lines"
        os.mkfifo(lines)
        self.readers = [Reader(reader, self.log), Reader(os.open(lines, os.O_RDWR), None)]
        words = "--bind 127.0.0.1:0 --admin 127.0.0.1:0 --threads 4 --graceful-timeout 5s"
        options = [f"--processes={_WORKERS}", "--max-processes=4", f"--control={self.control}"]
        options += [f"--access-log={lines}", "--log-level=warning"]
        serve = [sys.executable, "-m", "poolsrv", "serve", f"{__name__}:application"]
        self.process = subprocess.Popen(
            [*serve, *words.split(), *options],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        os.close(log)
        self.group: Path | None = None
        if os.access(_PIDS, os.W_OK):
            self.group = _PIDS / f"chaos-{self.process.pid}"
            self.group.mkdir()
            (self.group / "cgroup.procs").write_text(str(self.process.pid))
        until(lambda: bool(self._printed("status")))
        self.url = self._printed("application")
        host, port = self.url.removeprefix("http://").split(":")
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

    def limit(self, pid: int, which: str, soft: int | None) -> None:
        """Set a soft limit of one of its processes; None: as high as it may be."""
        if soft is None:
            shown = ["prlimit", "--pid", str(pid), f"--{which}", "--output=HARD", "--noheadings"]
            hard = subprocess.run(shown, capture_output=True, text=True, check=False).stdout
            soft = int(hard) if hard.strip().isdecimal() else -1
        value = "unlimited" if soft < 0 else str(soft)
        command = ["prlimit", "--pid", str(pid), f"--{which}={value}:"]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)

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
    refused: int = 0
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

    def _reconnect(self, connection: socket.socket) -> None:
        self._chooser.unregister(connection)
        del self._asked[connection]
        connection.close()
        self._connect()

    def _ask(self, connection: socket.socket) -> None:
        token = b"%d-%d" % (connection.fileno(), self.answers + self.lost + self.refused)
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
            self._reconnect(connection)
            return
        if data.startswith((b"HTTP/1.1 502", b"HTTP/1.1 503")):
            # It was inside a worker that has ended, or there was no thread for it in time.
            self.lost += data.startswith(b"HTTP/1.1 502")
            self.refused += data.startswith(b"HTTP/1.1 503")
            self._reconnect(connection)
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
            self.crash_worker,
            self.kill_worker_of_a_stopped_keeper,
            self.kill_template,
            self.kill_exporter,
            self.stop_worker,
            self.stop_template,
            self.reload,
            self.recycle,
            self.scale,
            self.take_descriptors,
            self.take_processes,
            self.read_no_logs,
        ]
        while not stop.wait(_PAUSE):
            deed = self._chance.choice(deeds)
            self.done[deed.__name__] += 1
            with suppress(ProcessLookupError, FileNotFoundError, ControlError, IndexError):
                deed()

    def kill_worker(self) -> None:
        os.kill(self._one("pool:worker"), signal.SIGKILL)

    def crash_worker(self) -> None:
        os.kill(self._one("pool:worker"), signal.SIGSEGV)

    def kill_worker_of_a_stopped_keeper(self) -> None:
        """Its connections wait for it, and nobody waits for them."""
        worker = self._one("pool:worker")
        keepers = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        for keeper in map(int, keepers):
            if (Path(f"/proc/{keeper}/comm").read_text()).startswith("pool:keeper"):
                os.kill(keeper, signal.SIGSTOP)
                os.kill(worker, signal.SIGKILL)
                time.sleep(self._chance.uniform(0.05, 0.5))
                os.kill(keeper, signal.SIGCONT)

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

    def take_descriptors(self) -> None:
        """What it has open it keeps; nothing can be opened."""
        others = [pid for pid, _, _ in self._target.processes()]
        pid = self._chance.choice([self._target.process.pid, *others])
        self._take("nofile", pid, 3)

    def take_processes(self) -> None:
        """As many as there are, and no more: for all of the server, or one of its processes."""
        if self._target.group is None:
            self._take("nproc", self._one("pool:"), 1)
            return
        most = self._target.group / "pids.max"
        most.write_text((self._target.group / "pids.current").read_text())
        time.sleep(self._chance.uniform(0.05, 1.0))
        most.write_text("max")

    def read_no_logs(self) -> None:
        for reader in self._target.readers:
            Thread(target=reader.pause, args=(self._chance.uniform(0.5, 3),)).start()

    def _take(self, which: str, pid: int, soft: int) -> None:
        self._target.limit(pid, which, soft)
        time.sleep(self._chance.uniform(0.05, 1.0))
        self._target.limit(pid, which, None)

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
    # The application waits for its children as it is called, and nobody calls it any more.
    for _ in range(2 * _WORKERS):
        with suppress(OSError), urllib.request.urlopen(target.url, timeout=10) as answer:
            answer.read()
    ready = [worker["generation"] for worker in now["workers"] if worker["state"] == "ready"]
    whole = len(now["workers"]) == len(ready) == _WORKERS and len(set(ready)) == 1
    # Workers and their keepers, one template, one exporter.
    return whole and len(list(target.processes())) == 2 * _WORKERS + 2


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
    metrics = target.get("metrics")
    faults += [line for line in metrics.splitlines() if _NOT_AT_REST.match(line)]
    text = target.log.read_text()
    faults += [text for text in _FAULT.findall(text) if "Too many open files" not in text]
    target.process.terminate()
    status = target.process.wait(30)
    if status != 0:
        faults.append(f"exit status {status}")
    if left := list(target.processes()):
        faults.append(f"processes are left: {left}")
    elif target.group:
        target.group.rmdir()
    return faults


def run(seconds: int, seed: int) -> bool:
    """Whether all was whole afterwards; prints what there was, and what was not."""
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        until(lambda: is_at_peace(target))
        held = target.descriptors()
        clients, monkey, stop = Clients(target.address), Monkey(target, seed), Event()
        thread = Thread(target=monkey.run, args=(stop,))
        thread.start()
        load = [
            f"-d{seconds}s",
            "-c16",
            "-t1",
            f"http://{':'.join(map(str, clients.address))}/?w",
        ]
        with subprocess.Popen(["wrk", *load], stdout=subprocess.DEVNULL):
            clients.run(seconds)
            stop.set()
            thread.join()
        faults = judge(target, clients, held)
        print(
            f"{clients.answers} answers, {clients.lost} lost, {clients.refused} refused, "
            f"slowest {clients.slowest:.2f} s"
        )
        print(", ".join(f"{name} {count}" for name, count in sorted(monkey.done.items())))
        if faults:
            print("\n".join(faults))
            print(target.log.read_text()[-4000:])
    return not faults
