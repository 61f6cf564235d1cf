"""What observation costs, in instructions a request.

Two builds of the core serve hello, the smallest request there is, on one
thread: one as it is released, one that leaves out what is only looked at
(SCOREBOARD_OBSERVED). Callgrind counts the instructions of that thread. Those
of a short run taken from those of a long one are those of requests alone, and
they are the same each time, whatever else the machine does: a time would have
to be measured to 1 % to show as much.

Not counted are the kernel's, and those of the clock's readings, which callgrind
sees as system calls.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests._bench import _worker
from loadtests._bench._cell import HOST, ROOT
from loadtests._bench._servers import Failed, Missing
from poolsrv import _core
from poolsrv.settings.core import core_options
from poolsrv.settings.rows import Settings
from poolsrv.system.sockets import channel_pair

BUILDS = ("release", "unobserved")

# What the first requests do once (caches, arenas) is in the short run as well.
_FEW = 1000
# Under callgrind, Python takes some ten seconds to start, and as long to end.
_PATIENCE = 60.0
_SETTINGS = Settings(
    header_timeout=_PATIENCE, keep_alive_timeout=_PATIENCE, queue_timeout=_PATIENCE
)


@dataclass(frozen=True)
class Count:
    build: str
    requests: int
    instructions: float  # a request


def measure(requests: int, tell: Callable[[str], None]) -> list[Count]:
    """Of each build, over so many requests. Raises Missing or Failed."""
    if shutil.which("valgrind") is None:
        raise Missing("valgrind is missing: apt-get install valgrind")
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in BUILDS:
            tell(f"{name}: compiles, then serves {_FEW} and {_FEW + requests} requests")
            package = build(name, Path(folder, name))
            few, many = (
                _count(package, n, Path(folder, "callgrind")) for n in (_FEW, _FEW + requests)
            )
            found.append(Count(name, requests, (many - few) / requests))
    return found


def build(name: str, folder: Path) -> Path:
    """A build of setup.py: a folder that holds the package with its core. Raises Failed."""
    ignore = shutil.ignore_patterns("csrc", "*.so", "__pycache__")
    shutil.copytree(ROOT / "poolsrv", folder / "poolsrv", ignore=ignore)
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(folder)]
    done = subprocess.run(
        [*command, "--build-temp", str(folder / "objects")],
        cwd=ROOT,
        env=os.environ | {"POOLSRV_BUILD": name},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"build {name}: {done.stderr.strip()[-300:]}")
    return folder


def _count(package: Path, requests: int, out: Path) -> int:
    """Instructions of the request thread, from its start to its end."""
    command = ["valgrind", "--quiet", "--tool=callgrind", "--separate-threads=yes"]
    with worker(package, [*command, f"--callgrind-out-file={out}"]) as client:
        ask(client, requests)
    # The main thread is the first: it loads what there is, and then watches by
    # the clock, whose ticks are many where everything else is slow.
    totals = re.findall(r"^totals: (\d+)$", Path(f"{out}-02").read_text(), re.MULTILINE)
    return int(totals[-1])


@contextmanager
def worker(package: Path, runner: list[str]) -> Iterator[socket.socket]:
    """A connection, already used, to a worker with the core of `package`. Raises Failed.

    `runner` is the command that Python is run by. When the block ends, the worker has.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        listener.setblocking(False)
        channel = [stack.enter_context(end) for end in channel_pair()]
        board = _owned(stack, _core.scoreboard_create(1, 1))
        lifeline = _owned(stack, os.eventfd(0))
        dispatcher = _core.Dispatcher(
            _core.Scoreboard(board),
            [listener.fileno()],
            core_options(_SETTINGS),
        )
        stack.callback(dispatcher.close)
        dispatcher.channel(0, *(end.fileno() for end in channel))
        passed = (board, *(end.fileno() for end in channel), dispatcher.bell, lifeline)
        process = stack.enter_context(
            subprocess.Popen(
                [*runner, sys.executable, "-m", _worker.__name__, *map(str, passed)],
                # That package, not the one in this folder; and one order of all sets.
                env=os.environ
                | {"PYTHONPATH": f"{package}:{ROOT}", "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"},
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=passed,
            )
        )
        stack.callback(process.kill)
        dispatcher.watch(_owned(stack, os.pidfd_open(process.pid)), _ENDED)
        _expect(dispatcher, process, (_core.EVENT_NEWS, 0, 0, _core.NEWS_READY))
        dispatcher.enable(0, True)
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        client.settimeout(_PATIENCE)
        client.sendall(_REQUEST)
        # As long as nobody waits here, nobody dispatches it.
        dispatcher.watch(client.fileno(), _ANSWERED)
        _expect(dispatcher, process, (_core.EVENT_READABLE, _ANSWERED))
        client.recv(4096)
        yield client
        client.close()
        process.terminate()
        try:
            _, said = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"the worker does not end within {_PATIENCE:g} s") from None
        if process.returncode:
            raise Failed(f"exit status {process.returncode}: {said.strip()[-300:]}")


# Tokens of what the dispatcher watches for us.
_ENDED, _ANSWERED = 0, 1
_REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def _owned(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _expect(
    dispatcher: _core.Dispatcher, process: "subprocess.Popen[str]", begins: tuple[int, ...]
) -> None:
    """Wait for an event that begins like this."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        events = dispatcher.wait(deadline)
        if any(event[: len(begins)] == begins for event in events):
            return
        if (_core.EVENT_READABLE, _ENDED) in events:
            raise Failed(f"the worker ended: {process.communicate()[1].strip()[-300:]}")
        if time.monotonic() > deadline:
            raise Failed(f"the worker is not ready within {_PATIENCE:g} s")


def ask(client: socket.socket, requests: int) -> None:
    """One after the other. Raises Failed for an answer that is none."""
    for _ in range(requests):
        client.sendall(_REQUEST)
        answer = client.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Failed(f"answers {answer[:60]!r}")


def markdown(counts: list[Count]) -> str:
    with_all, without = counts
    cost = with_all.instructions - without.instructions
    return "\n".join(
        [
            "# What observation costs",
            "",
            f"Instructions of the request thread for a hello, mean of {with_all.requests}.",
            "",
            "| build | a request |",
            "| --- | --: |",
            *(f"| {count.build} | {count.instructions:,.0f} |" for count in counts),
            f"| difference | {cost:,.0f}, {cost / without.instructions:.1%} |",
            "",
        ]
    )
