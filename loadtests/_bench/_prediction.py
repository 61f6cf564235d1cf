"""The real server beside the model, at a size that fits a small machine.

An open-loop client sends requests at the times of a trace, each on its own
connection, and each tells the application how long to sleep. Slow ones of a
bimodal trace have a path of their own. The model is then
given the times at which they were really sent, so what the client was late by
is no error of either, and as service time what they slept and what a request
costs beside that (measured on the idle server).

A ratio of 1 says that the server adds no waiting of its own. A little less is
usual: on an idle server a request costs more than on one that is awake.
"""

import selectors
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from loadtests._bench import _apps
from loadtests._bench._cell import HOST, running, surroundings
from loadtests._bench._curves import quantile
from loadtests._bench._model import DISTRIBUTIONS, Request, simulate, trace
from loadtests._bench._servers import OURS, Failed
from loadtests._bench._workloads import Shape, Workload

_MEAN = 0.02  # seconds: long beside what a request costs, short beside a run
_LOADS = (0.5, 0.7, 0.9)
_CALIBRATION = 100  # requests
_PATIENCE = 10.0

_APP = Workload("timed", f"{_apps.__name__}:timed", 1, (), "sleeps as told")


@dataclass(frozen=True)
class Check:
    """Seconds; predicted and measured: mean, p50 and p99 of the response, mean of the wait."""

    distribution: str
    load: float
    requests: int
    overhead: float
    predicted: tuple[float, float, float, float]
    measured: tuple[float, float, float, float]


def check(
    python: Path, shape: Shape, seconds: float, seed: int, tell: Callable[[str], None]
) -> list[Check]:
    """Each load and distribution for so long. Raises Failed."""
    found = []
    with (
        surroundings(),
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running(OURS, _APP, shape, Path(folder), python) as (port, _),
    ):
        overhead = _calibrate(port)
        for distribution in ("exponential", "bimodal"):
            for load in _LOADS:
                rate = load * shape.processes * shape.threads / _MEAN
                coming = trace(seed, int(rate * seconds), rate, _MEAN, DISTRIBUTIONS[distribution])
                tell(f"{distribution}, load {load:g}: {len(coming)} requests")
                sent = send(port, coming)
                served = [
                    Request(request.arrival, request.service + overhead, request.usual)
                    for request in sent
                ]
                pool = simulate(served, *shape, "poolsrv")
                found.append(
                    Check(
                        distribution,
                        load,
                        len(coming),
                        overhead,
                        _summary(pool.ended, 0.0),
                        _summary(sent, overhead),
                    )
                )
    return found


def _summary(requests: list[Request], overhead: float) -> tuple[float, float, float, float]:
    responses = sorted(request.response for request in requests)
    return (
        fmean(responses),
        quantile(responses, 0.5),
        quantile(responses, 0.99),
        fmean(request.delay for request in requests) - overhead,
    )


def _calibrate(port: int) -> float:
    """What a request takes beyond its sleep on an idle server, in seconds."""
    apart = [Request(i * 2 * _MEAN, _MEAN / 4) for i in range(_CALIBRATION)]
    return median(request.delay for request in send(port, apart))


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
        f" {1000 * checks[0].overhead:.2f} ms for the request itself. Measured / predicted, ms.",
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
