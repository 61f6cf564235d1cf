"""The real server beside the model, at a size that fits a small machine.

An open-loop client sends requests at the times of a trace, each on its own
connection, and each tells the application how long to sleep. Slow ones of a
bimodal trace have a path of their own. The model is then
given the times at which they were really sent, so what the client was late by
is no error of either, and as service time what they slept and for how long a
request held its thread beside that, which is the server's own figure of the same
run: at a load of 0.95 a thousandth more makes waits 2 % longer. What is left
of a request that need not wait is its way, which holds no thread: it is added.

A ratio of 1 says that the server adds no waiting of its own.
"""

import re
import selectors
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from loadtests._bench import _apps
from loadtests._bench._cell import HOST, free_port, running, surroundings
from loadtests._bench._curves import WARMUP, quantile
from loadtests._bench._model import DISTRIBUTIONS, Request, simulate, trace
from loadtests._bench._servers import OURS, Failed
from loadtests._bench._workloads import Shape, Workload

_MEAN = 0.02  # seconds: long beside what a request costs, short beside a run
_LOADS = (0.5, 0.7, 0.9, 0.95)
# A load at which requests hardly wait, but the server is awake.
_AWAKE = 0.3
_CALIBRATION = 300  # requests
_PATIENCE = 10.0

_APP = Workload("timed", f"{_apps.__name__}:timed", 1, (), "sleeps as told")


@dataclass(frozen=True)
class Check:
    """Seconds. `held`: a thread, by each request, beyond its sleep; `way`: what it takes beside
    that. Predicted and measured: mean, p50 and p99 of the response, mean of the wait."""

    distribution: str
    load: float
    requests: int
    held: float
    way: float
    predicted: tuple[float, float, float, float]
    measured: tuple[float, float, float, float]


def check(
    python: Path, shape: Shape, seconds: float, seed: int, tell: Callable[[str], None]
) -> list[Check]:
    """Each load and distribution for so long. Raises Failed."""
    found = []
    admin = free_port()
    ours = replace(OURS, command=OURS.command.replace("--admin off", f"--admin {HOST}:{admin}"))
    with (
        surroundings(),
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running(ours, _APP, shape, Path(folder), python) as (port, _),
    ):
        server = _Measured(port, admin)
        calibration = _AWAKE * shape.processes * shape.threads / _MEAN
        sent, held = server.send(
            trace(0, _CALIBRATION, calibration, _MEAN, DISTRIBUTIONS["exponential"])
        )
        way = max(median(request.delay for request in sent) - held, 0.0)
        for distribution in ("exponential", "bimodal"):
            for load in _LOADS:
                rate = load * shape.processes * shape.threads / _MEAN
                coming = trace(seed, int(rate * seconds), rate, _MEAN, DISTRIBUTIONS[distribution])
                tell(f"{distribution}, load {load:g}: {len(coming)} requests")
                sent, held = server.send(coming)
                served = [
                    Request(request.arrival, request.service + held, request.usual)
                    for request in sent
                ]
                pool = simulate(served, *shape, "poolsrv")
                found.append(
                    Check(
                        distribution,
                        load,
                        len(coming),
                        held,
                        way,
                        _summary(pool.ended, way, 0.0),
                        _summary(sent, 0.0, held + way),
                    )
                )
    return found


_FIGURE = re.compile(r"^poolsrv_(thread_busy_seconds|requests)_total\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class _Measured:
    """The server, which says for how long its threads were busy."""

    port: int
    admin: int

    def send(self, coming: list[Request]) -> tuple[list[Request], float]:
        """What became of them, and for how long each held a thread beyond its sleep."""
        before = self._figures()
        sent = send(self.port, coming)
        after = self._figures()
        busy, count = (now - then for then, now in zip(before, after, strict=True))
        return sent, busy / count - fmean(request.service for request in sent)

    def _figures(self) -> tuple[float, float]:
        with urllib.request.urlopen(f"http://{HOST}:{self.admin}/metrics") as answer:
            found = _FIGURE.findall(answer.read().decode())
        return (
            sum(float(value) for name, value in found if name == "thread_busy_seconds"),
            sum(float(value) for name, value in found if name == "requests"),
        )


def _summary(
    requests: list[Request], way: float, known: float
) -> tuple[float, float, float, float]:
    """Without the first, with which the server learns what its paths take. `way` is added
    to each response; `known` is no wait."""
    counted = sorted(requests, key=lambda request: request.arrival)[int(WARMUP * len(requests)) :]
    responses = sorted(request.response + way for request in counted)
    return (
        fmean(responses),
        quantile(responses, 0.5),
        quantile(responses, 0.99),
        fmean(request.delay for request in counted) - known,
    )


def send(port: int, coming: list[Request]) -> list[Request]:
    """What became of them: when they were sent, and when their answers came.

    Raises Failed for an answer that is none.
    """
    done: list[Request] = []
    todo = iter(coming)
    following = next(todo, None)
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        while following or selector.get_map():
            now = time.monotonic() - began
            if following and following.arrival <= now:
                connection = socket.create_connection((HOST, port), _PATIENCE)
                # Before it is sent: the server may have read it before we look again.
                sent = Request(time.monotonic() - began, following.service, following.usual)
                _ask(connection, following)
                selector.register(connection, selectors.EVENT_READ, sent)
                following = next(todo, None)
                continue
            patience = following.arrival - now if following else _PATIENCE
            ready = selector.select(patience)
            if not ready and not following:
                raise Failed(f"{len(selector.get_map())} requests were not answered")
            for key, _ in ready:
                sent = key.data
                sent.ended = time.monotonic() - began
                selector.unregister(key.fileobj)
                with key.fileobj as connection:  # type: ignore[union-attr]
                    if not connection.recv(4096).startswith(b"HTTP/1.1 200 "):
                        raise Failed("a request was answered with an error")
                done.append(sent)
    return done


def _ask(connection: socket.socket, request: Request) -> None:
    path = "/slow" if request.usual > _MEAN else "/"
    connection.sendall(
        f"GET {path}?{request.service:.6f} HTTP/1.1\r\n"
        f"Host: {HOST}\r\n"
        "Connection: close\r\n\r\n".encode()
    )


def markdown(checks: list[Check], shape: Shape) -> str:
    lines = [
        f"# The server beside the model, {shape}",
        "",
        f"Open loop, a connection for each request, {1000 * _MEAN:g} ms of sleep on average and"
        f" {1000 * checks[0].held:.2f} ms for the request itself; {1000 * checks[0].way:.2f} ms on"
        " its way. Measured / predicted, ms.",
        "",
        "| service | load | requests | mean | ratio | p50 | ratio | p99 | ratio | wait | ratio |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for found in checks:
        cells = []
        for measured, predicted in zip(found.measured, found.predicted, strict=True):
            ratio = f"{measured / predicted:.2f}" if predicted > _NOTICEABLE else ""
            cells.append(f"{1000 * measured:.2f} / {1000 * predicted:.2f} | {ratio}")
        lines.append(
            f"| {found.distribution} | {found.load:g} | {found.requests} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines) + "\n"


# Seconds. A ratio of less than this is one of noise.
_NOTICEABLE = 0.0005
