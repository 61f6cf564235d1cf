"""What groups of processes cost, and whether they leave each other alone.

CPU a request while kept connections change groups, beside a server with one group; and the
times of one group's requests while the other is full, or dies with each request. The loads
take turns of a second, so whatever else the machine does hits all alike.
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median

from loadtests._bench import _processes, _wrk
from loadtests._bench._cell import HOST, free_port
from loadtests._bench._servers import Failed

_CONNECTIONS = 32
_PATIENCE = 10.0

# The share of requests for the other group: each N-th.
_CHANGES = {"one group": 0, "two groups, one asked": 0, "each tenth for b": 10, "half for b": 2}

_APPLICATIONS = """
import os, time

def _answer(start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]

def hello(environ, start_response):
    return _answer(start_response)

def sleep(environ, start_response):
    time.sleep(0.2)
    return _answer(start_response)

def die(environ, start_response):
    os._exit(1)
"""

_FILE = """
bind = "{host}:{port}"
admin = "off"
control = "off"
processes = 1
threads = 4
mount = [
    {{ path = "/a", application = "applications:{a}", group = "a" }},
    {{ path = "/b", application = "applications:hello", group = "{b}" }},
]
[group.a]
{more}
"""


@dataclass
class Cost:
    """Of the whole server, for so many requests; `cpu` in seconds."""

    name: str
    requests: int = 0
    cpu: float = 0.0

    @property
    def microseconds(self) -> float:
        return self.cpu / self.requests * 1e6 if self.requests else float("nan")


@dataclass
class Beside:
    """Quantiles of a group's requests, in seconds, a round each."""

    name: str
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


def measure(rounds: int, tell: Callable[[str], None]) -> tuple[list[Cost], list[Beside]]:
    """Raises Failed."""
    return _costs(rounds, tell), _isolation(rounds, tell)


def _costs(rounds: int, tell: Callable[[str], None]) -> list[Cost]:
    costs = [Cost(name) for name in _CHANGES]
    with ExitStack() as stack:
        pids = [
            stack.enter_context(_running("hello", "b" if number else "a"))
            for number in range(len(costs))
        ]
        for turn in range(rounds + 1):
            tell(f"groups: round {turn} of {rounds}")
            for cost, (pid, port) in zip(costs, pids, strict=True):
                url = f"http://{HOST}:{port}/{_CHANGES[cost.name]}"
                before = _processes.cpu_seconds(pid)
                load = _wrk.load(url, 1, _wrk.Run(_CONNECTIONS, "groups.lua"))
                if load.errors or load.timeouts:
                    raise Failed(f"{cost.name}: {load.errors + load.timeouts} requests failed")
                if turn:  # the first is for warming up
                    cost.requests += load.requests
                    cost.cpu += _processes.cpu_seconds(pid) - before
    return costs


def _isolation(rounds: int, tell: Callable[[str], None]) -> list[Beside]:
    """Times of b's requests."""
    found = [Beside(name) for name in ("a has nothing to do", "a is full", "a dies all the time")]
    with ExitStack() as stack:
        full = stack.enter_context(_running("sleep", "b"))
        dying = stack.enter_context(_running("die", "b"))
        for turn in range(rounds):
            tell(f"isolation: round {turn + 1} of {rounds}")
            for beside, (_, port), asks in zip(
                found, (full, full, dying), (0, _CONNECTIONS, 1), strict=True
            ):
                with _asking(port, asks):
                    load = _wrk.load(f"http://{HOST}:{port}/b", 1, _wrk.Run(4))
                beside.p50.append(load.quantiles["50"])
                beside.p99.append(load.quantiles["99"])
    return found


@contextmanager
def _asking(port: int, clients: int) -> Iterator[None]:
    """So many clients ask for /a meanwhile, each for one thing after the other."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            connection = HTTPConnection(HOST, port, timeout=_PATIENCE)
            try:
                connection.request("GET", "/a")
                connection.getresponse().read()
            except (HTTPException, OSError):
                over.wait(0.01)  # its worker has died
            finally:
                connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def _running(a: str, b: str) -> Iterator[tuple[int, int]]:
    """(pid, port) of a server whose /a is in the group a, and /b in `b`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "applications.py").write_text(_APPLICATIONS)
        more = "" if b == "a" else f"[group.{b}]"
        text = _FILE.format(host=HOST, port=port, a=a, b=b, more=more)
        (folder / "poolsrv.toml").write_text(text)
        argv = [sys.executable, "-m", "poolsrv", "serve"]
        with _processes.serving(argv, folder / "log", lambda: _serves(port), folder) as pid:
            yield pid, port


def _serves(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/b")
        return connection.getresponse().status == 200
    except (HTTPException, OSError):
        return False
    finally:
        connection.close()


def markdown(costs: list[Cost], isolation: list[Beside]) -> str:
    lines = ["| kept connections | us of CPU a request |", "| --- | ---: |"]
    lines += [f"| {cost.name} | {cost.microseconds:.1f} |" for cost in costs]
    lines += ["", "| requests of b | p50 | p99, median of the rounds | worst |"]
    lines += ["| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {beside.name} | {median(beside.p50) * 1e3:.2f} ms | {median(beside.p99) * 1e3:.2f} ms"
        f" | {max(beside.p99) * 1e3:.2f} ms |"
        for beside in isolation
    ]
    return "\n".join(lines) + "\n"
