"""One measurement: a server is started, loaded, looked at and ended."""

import http.client
import importlib
import io
import os
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from loadtests._bench import _apps, _processes, _wrk
from loadtests._bench._servers import Failed, Server
from loadtests._bench._workloads import WORKLOADS, Shape, Workload

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]

_STARTUP = 20.0
_FILE_SIZE = 2**20
# More than the crowd; not all we may have, for some servers keep a table of them.
_DESCRIPTORS = 16384
_UPLOAD = b"a" * 65536
# For each of the idle connections, and for all of them.
_IDLE_TIMEOUT = 1.0
_IDLE_PATIENCE = 15.0


@dataclass(frozen=True)
class Conditions:
    """Of all cells of a run; seconds. `pythons`: by server, the interpreter that has it."""

    duration: int
    warmup: int
    pythons: dict[str, Path]


@dataclass
class Cell:
    """What one measurement found; `failed` says why there is nothing. Seconds and bytes."""

    server: str
    workload: str
    shape: str  # what the server really ran with
    asked: str
    round: int
    failed: str | None = None
    requests: int = 0
    duration: float = 0.0
    quantiles: dict[str, float] = field(default_factory=dict)
    apart: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: int = 0
    timeouts: int = 0
    cpu: float = 0.0  # of the server's whole tree
    client_cpu: float = 0.0
    elsewhere: float = 0.0  # cores that others used meanwhile
    memory: int = 0
    idle: int = 0  # connections that stayed open beside the load
    memory_per_idle: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.duration

    @property
    def per_cpu(self) -> float:
        """Requests per CPU second of the server, whose time is counted in ticks: one at least."""
        return self.requests / max(self.cpu, _processes.TICK)

    @property
    def latency(self) -> dict[str, float]:
        """Of the requests that the workload is about, where they are told apart."""
        return self.apart.get(WORKLOADS[self.workload].about, self.quantiles)


def measure(
    server: Server, workload: Workload, asked: Shape, number: int, conditions: Conditions
) -> Cell:
    """Never raises for what a server does: that is a finding."""
    shape = server.shape(asked)
    cell = Cell(server.name, workload.name, str(shape), str(asked), number)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            ours, clients = _divide(shape)
            python = conditions.pythons[server.name]
            port, pid = stack.enter_context(running(server, workload, shape, folder, python, ours))
            stack.enter_context(_on(clients))
            _fill_in(cell, workload, port, pid, conditions)
    except Failed as error:
        cell.failed = str(error)
    return cell


def _fill_in(cell: Cell, workload: Workload, port: int, pid: int, conditions: Conditions) -> None:
    url = f"http://{HOST}:{port}/"
    kept = _wrk.Run(workload.connections, workload.script, workload.close)
    new = _wrk.Run(workload.new, close=True) if workload.new else None

    def load(seconds: int) -> _wrk.Load:
        return _wrk.load(url, seconds, kept, new)

    # First, so that what a process allocates once is not laid to the idle.
    if conditions.warmup:
        load(conditions.warmup)
    with ExitStack() as stack:
        held: list[socket.socket] = []
        if workload.idle:
            before = _processes.memory(pid)
            held = stack.enter_context(_idle(port, workload.idle))
            if held:
                cell.memory_per_idle = (_processes.memory(pid) - before) / len(held)
        machine, cpu = _processes.machine_seconds(), _processes.cpu_seconds(pid)
        found = load(conditions.duration)
        if not _processes.is_running(pid):
            raise Failed("ended under load")
        cell.cpu = _processes.cpu_seconds(pid) - cpu
        machine = _processes.machine_seconds() - machine
        cell.memory = _processes.memory(pid)
        cell.idle = sum(_is_open(connection) for connection in held)
    cell.requests, cell.duration = found.requests, found.duration
    cell.errors, cell.timeouts = found.errors, found.timeouts
    cell.quantiles, cell.apart = found.quantiles, found.apart
    cell.client_cpu = found.client_cpu
    cell.elsewhere = max(0.0, (machine - cell.cpu - found.client_cpu) / found.duration)
    if not found.requests:
        raise Failed(f"no request was answered in {found.duration:.0f} s")


# ---------------------------------------------------------------------------
# The server


@contextmanager
def running(
    server: Server,
    workload: Workload,
    shape: Shape,
    folder: Path,
    python: Path,
    cpus: set[int] | None = None,
) -> Iterator[tuple[int, int]]:
    """(port, pid of the root) of a server that gives the right answer. Raises Failed."""
    log = folder / "log"
    port = free_port()
    argv = server.argv(
        app=workload.app,
        module=workload.module,
        callable=workload.callable,
        host=HOST,
        port=port,
        processes=shape.processes,
        threads=shape.threads,
        python=python,
        bin=python.parent,
        folder=folder,
    )
    with log.open("wb") as output, _on(cpus or os.sched_getaffinity(0)):
        try:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(f"{argv[0]} cannot be started: {error.strerror}") from None
    try:
        _wait_until_serving(process, workload, port, log)
        yield port, process.pid
    finally:
        _processes.end(process)


def _wait_until_serving(
    process: "subprocess.Popen[bytes]", workload: Workload, port: int, log: Path
) -> None:
    expected = answer(workload)
    deadline = time.monotonic() + _STARTUP
    while True:
        try:
            got = _ask(port, workload)
            break
        except (OSError, http.client.HTTPException) as error:
            if process.poll() is not None:
                raise Failed(f"exit status {process.returncode}: {_end_of(log)}") from None
            if time.monotonic() > deadline:
                raise Failed(f"does not answer ({error!r}): {_end_of(log)}") from None
        time.sleep(0.02)  # a server that starts raises no event here
    if got != expected:
        raise Failed(f"answers {got[:60]!r} where the application says {expected[:60]!r}")


def _end_of(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").split("\n"))[-300:].strip(" |")


def _ask(port: int, workload: Workload) -> bytes:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        if workload.script == "upload.lua":
            connection.request("POST", "/", _UPLOAD)
        else:
            connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    return body if response.status == 200 else f"status {response.status}".encode()


def answer(workload: Workload) -> bytes:
    """What the application says when it is called here. ModuleNotFoundError if it cannot be."""
    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    if workload.script == "upload.lua":
        environ |= {"wsgi.input": io.BytesIO(_UPLOAD), "CONTENT_LENGTH": str(len(_UPLOAD))}
    application = getattr(importlib.import_module(workload.module), workload.callable)
    body = application(environ, lambda *_: None)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def free_port() -> int:
    """One that nobody listens on now. Servers cannot all be told to choose one and say so."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


# ---------------------------------------------------------------------------
# Processors


def _divide(shape: Shape) -> tuple[set[int], set[int]]:
    """(the server's CPUs, the client's). One thread of Python that hops between
    cores while the client chases it loses up to a third: it gets a core of its
    own. Larger pools share the machine with the client, as they would there."""
    cpus = os.sched_getaffinity(0)
    if shape != (1, 1) or len(cpus) < 2:
        return cpus, cpus
    first = min(cpus)
    return {first}, cpus - {first}


@contextmanager
def _on(cpus: set[int]) -> Iterator[None]:
    """Processes started in this block run on these CPUs, and so do their children."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


# ---------------------------------------------------------------------------
# Idle connections


@contextmanager
def _idle(port: int, count: int) -> Iterator[list[socket.socket]]:
    """As many connections as the server answers once, within our patience, and then keeps."""
    request = f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode()
    deadline = time.monotonic() + _IDLE_PATIENCE
    with ExitStack() as held:
        connections: list[socket.socket] = []
        while len(connections) < count and time.monotonic() < deadline:
            try:
                connection = socket.create_connection((HOST, port), _IDLE_TIMEOUT)
                connections.append(held.enter_context(connection))
                connection.sendall(request)
                connection.recv(65536)
            except OSError as error:
                raise Failed(f"after {len(connections)} idle connections: {error}") from None
        yield connections


def _is_open(connection: socket.socket) -> bool:
    """Nothing came on it since it fell idle, not even its end."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


@contextmanager
def surroundings() -> Iterator[None]:
    """What cells and servers inherit: descriptors enough, and the file to send."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _DESCRIPTORS)), hard))
    with tempfile.NamedTemporaryFile(prefix="bench-") as sent:
        sent.write(bytes(_FILE_SIZE))
        sent.flush()
        os.environ[_apps.FILE_VARIABLE] = sent.name
        try:
            yield
        finally:
            del os.environ[_apps.FILE_VARIABLE]
