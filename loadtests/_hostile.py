"""Hostile clients beside normal ones: what do the normal ones notice?

    python -m loadtests._hostile                      every scenario
    python -m loadtests._hostile slowloris list       these two
    python -m loadtests._hostile --url http://127.0.0.1:8000 --metrics-url ...

Without --url it starts a server of its own; another must serve the
application of this file (`poolsrv serve loadtests._hostile:application`).

wrk asks for /hello on kept-alive connections, by turns without and with a
crowd of slow clients, so that what else the machine does falls on both alike.
The table has the medians of the pairs: requests a second and p99 of the normal
clients; their errors; the slow connections that the server ended, as their
clients see it (a reader does behind what the kernel keeps for it, megabytes);
the most threads that were in a request while only the crowd was there.

It needs wrk, and a hard limit of descriptors above the number of slow clients.
"""

import argparse
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import IO
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIEnvironment

from loadtests._bench import _processes, _wrk
from loadtests._bench._servers import Failed, Missing

# ---------------------------------------------------------------------------
# The application

_SIZE = 50_000_000
_BLOCK = 65536


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI callable: PEP 3333. /list, /file and /generator answer the same bytes."""
    path = environ["PATH_INFO"]
    if path == "/upload":
        while environ["wsgi.input"].read(_BLOCK):
            pass
    if path == "/generator":
        start_response("200 OK", [])
        return _blocks()
    if path == "/file":
        # Opened anew, for a position of its own.
        file = Path(f"/proc/self/fd/{_file().fileno()}").open("rb")  # noqa: SIM115
        start_response("200 OK", [])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        return wrapped
    body = _large() if path == "/list" else b"Hello, World!\n"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@cache
def _large() -> bytes:
    return bytes(_SIZE)


@cache
def _file() -> IO[bytes]:
    """All zeros, and without a name: nothing is left of it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
    file.truncate(_SIZE)
    return file


def _blocks() -> Iterator[bytes]:
    block = bytes(_BLOCK)
    for _ in range(_SIZE // _BLOCK):
        yield block
    yield bytes(_SIZE % _BLOCK)


# ---------------------------------------------------------------------------
# Slow clients

# A second has so many turns, and each client one of them.
_TURNS = 50


@dataclass(frozen=True)
class Crowd:
    """`count` clients that send `first`, and then once a second either `piece`,
    or nothing but take `taken` bytes of the answer."""

    count: int
    first: bytes
    piece: bytes = b""
    taken: int = 0


# One byte a second, as the classic tool does it.
_SLOWLORIS = Crowd(1000, b"GET /hello HTTP/1.1\r\nHost: slow.example\r\nX-Slow: ", piece=b"a")
# Above --body-min-rate, so that the server has to bear with them.
_UPLOADS = Crowd(
    200,
    b"POST /upload HTTP/1.1\r\nHost: slow.example\r\nContent-Length: 10000000\r\n\r\n",
    piece=bytes(500),
)


def _readers(path: str) -> Crowd:
    first = f"GET {path} HTTP/1.1\r\nHost: slow.example\r\n\r\n".encode()
    return Crowd(20, first, taken=10_000)


SCENARIOS = {
    "slowloris": (_SLOWLORIS,),
    "uploads": (_UPLOADS,),
    "both": (_SLOWLORIS, _UPLOADS),
    "list": (_readers("/list"),),
    "file": (_readers("/file"),),
    "generator": (_readers("/generator"),),
}


class Client:
    """One of a crowd. A connection that the server ends it opens anew."""

    def __init__(self, address: tuple[str, int], crowd: Crowd) -> None:
        self._address, self._crowd = address, crowd
        self.ended = 0  # times
        self._open()

    def _open(self) -> None:
        self._socket = socket.socket()
        if self._crowd.taken:
            # What the kernel takes for it, it has not been slow to take.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._crowd.taken)
        self._socket.settimeout(5)
        self._socket.connect(self._address)
        self._socket.sendall(self._crowd.first)
        self._socket.setblocking(False)

    def act(self) -> None:
        if self._is_ended():
            self.ended += 1
            self._socket.close()
            self._open()

    def _is_ended(self) -> bool:
        """Any answer ends one that is not there to read it."""
        try:
            self._socket.send(self._crowd.piece)
            answer = self._socket.recv(self._crowd.taken or 1)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        return not (answer and self._crowd.taken)

    def close(self) -> None:
        self._socket.close()


class Present(Thread):
    """Keeps clients busy until it is told to `leave`."""

    def __init__(self, clients: list[Client]) -> None:
        super().__init__(name="crowd")
        self._clients = clients
        self._leaving = Event()
        self.failed: OSError | None = None

    def run(self) -> None:
        turn = 0
        try:
            while not self._leaving.wait(1 / _TURNS):
                for client in self._clients[turn::_TURNS]:
                    client.act()
                turn = (turn + 1) % _TURNS
        except OSError as error:
            self.failed = error

    def leave(self) -> None:
        self._leaving.set()
        self.join()


@contextmanager
def present(address: tuple[str, int], crowds: Iterable[Crowd]) -> Iterator[list[Client]]:
    """All of the crowds, from their first bytes on. Raises Failed if one cannot stay."""
    clients: list[Client] = []
    try:
        for crowd in crowds:
            for _ in range(crowd.count):
                clients.append(Client(address, crowd))
        thread = Present(clients)
        thread.start()
        try:
            yield clients
        finally:
            thread.leave()
        if thread.failed:
            raise Failed(f"a slow client cannot connect again: {thread.failed}")
    except OSError as error:
        raise Failed(f"after {len(clients)} slow clients: {error}") from None
    finally:
        for client in clients:
            client.close()


# ---------------------------------------------------------------------------
# Measuring

# For the server to take in all of a crowd, or to forget it.
_SETTLE = 2.0


@dataclass(frozen=True)
class Measured:
    """What the columns of the table show; pairs are (without, with) the crowd."""

    rate: tuple[float, float]  # requests a second
    p99: tuple[float, float]  # seconds
    errors: int
    ended: int
    busy: float


@dataclass(frozen=True)
class Target:
    url: str
    metrics: str

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def busy_threads(self) -> float:
        with urllib.request.urlopen(self.metrics, timeout=5) as response:
            text = response.read().decode()
        rows = re.findall(r"^poolsrv_threads_busy\S* (\S+)$", text, re.MULTILINE)
        return sum(map(float, rows))


def measure(
    target: Target, crowds: tuple[Crowd, ...], pairs: int, duration: int, normal: int
) -> Measured:
    run = _wrk.Run(normal)
    alone, beside = [], []
    ended, busy = 0, 0.0
    _wrk.load(f"{target.url}/hello", 1, run)  # what a process does once it has done
    for _ in range(pairs):
        alone.append(_wrk.load(f"{target.url}/hello", duration, run))
        with present(target.address, crowds) as clients:
            time.sleep(_SETTLE)
            busy = max(busy, target.busy_threads())
            beside.append(_wrk.load(f"{target.url}/hello", duration, run))
        ended += sum(client.ended for client in clients)
        time.sleep(_SETTLE)
    loads = alone + beside
    return Measured(
        rate=(_median_rate(alone), _median_rate(beside)),
        p99=(_median_p99(alone), _median_p99(beside)),
        errors=sum(load.errors + load.timeouts for load in loads),
        ended=ended,
        busy=busy,
    )


def _median_rate(loads: list[_wrk.Load]) -> float:
    return median(load.requests / load.duration for load in loads)


def _median_p99(loads: list[_wrk.Load]) -> float:
    return median(load.quantiles["99"] for load in loads)


@contextmanager
def serving(processes: int, threads: int, options: list[str]) -> Iterator[Target]:
    """A server of our own. Raises Failed if it does not start."""
    argv = [sys.executable, "-m", "poolsrv", "serve", "loadtests._hostile:application"]
    argv += ["--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "warning"]
    argv += ["--processes", str(processes), "--threads", str(threads), *options]
    process = subprocess.Popen(
        argv,
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        printed: dict[str, str] = {}
        assert process.stdout is not None
        while "metrics" not in printed or "application" not in printed:
            line = process.stdout.readline()
            if not line:
                raise Failed("the server does not start; its reason stands above")
            what, _, where = line.decode().strip().partition(" ")
            printed[what] = where
        yield Target(printed["application"].rstrip("/"), printed["metrics"])
    finally:
        _processes.end(process)


# ---------------------------------------------------------------------------
# The command

_TITLES = (
    "scenario", "slow",
    "req/s", "with", "ratio",
    "p99 ms", "with", "ratio",
    "errors", "ended", "busy",
)  # fmt: skip


def _row(name: str, slow: int, found: Measured) -> tuple[str, ...]:
    (rate, rate_with), (p99, p99_with) = found.rate, found.p99
    # Of answers that did not come there is no latency.
    late = (f"{1e3 * p99_with:.2f}", f"{p99_with / p99:.2f}") if rate_with else ("-", "-")
    return (
        name, f"{slow}",
        f"{rate:.0f}", f"{rate_with:.0f}", f"{rate_with / rate:.2f}",
        f"{1e3 * p99:.2f}", *late,
        f"{found.errors}", f"{found.ended}", f"{found.busy:g}",
    )  # fmt: skip


def _line(cells: Iterable[str]) -> str:
    first, *others = cells
    return f"{first:<10}" + "".join(f"{cell:>9}" for cell in others)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests._hostile")
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default: all"
    )
    parser.add_argument("--url", help="of a running server (default: start one)")
    parser.add_argument(
        "--metrics-url",
        default="http://127.0.0.1:9464/metrics",
        help="of that server (default: %(default)s)",
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--threads", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument(
        "--server-option",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="for the server that is started, as --server-option=--header-timeout=5s",
    )
    parser.add_argument("--pairs", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument(
        "--duration", type=int, default=5, metavar="S", help="of each half of a pair (default: 5)"
    )
    parser.add_argument(
        "--connections", type=int, default=32, metavar="N", help="normal ones (default: 32)"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the slow clients' number (default: 1)"
    )
    return parser


def main() -> int | str:
    """0, or why there is no table."""
    options = _parser().parse_args()
    names = options.scenarios or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        return f"there is no scenario {min(unknown)}; {', '.join(SCENARIOS)}"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(_line(_TITLES), flush=True)
    try:
        _wrk.version()
        for name in names:
            crowds = tuple(
                replace(crowd, count=max(1, round(crowd.count * options.scale)))
                for crowd in SCENARIOS[name]
            )
            arguments = (crowds, options.pairs, options.duration, options.connections)
            if options.url:
                target = Target(options.url.rstrip("/"), options.metrics_url)
                found = measure(target, *arguments)
            else:
                with serving(options.processes, options.threads, options.server_option) as target:
                    found = measure(target, *arguments)
            print(_line(_row(name, sum(crowd.count for crowd in crowds), found)), flush=True)
    except (Failed, Missing) as error:
        return str(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
