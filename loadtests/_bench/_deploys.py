"""What a deploy and a crash cost clients: reloads and kills under load, on 2x4.

Reloads once more with `--warm-up`: the first page of a Flask application compiles its
templates, which takes as long as some twenty pages, and the clients of new workers
wait for that.

wrk keeps its connections; one that the server closes, and an answer that does not
come, count as errors. Beside that, the same load without anything happening. A client
more, that asks again as soon as it has its answer, tells how long nobody got one: while
others do, it waits for as long as they.
"""

import http.client
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from loadtests._bench import _wrk
from loadtests._bench._cell import HOST, running
from loadtests._bench._servers import OURS, Failed, Server
from loadtests._bench._workloads import WORKLOADS, Shape
from poolsrv.between.control import Command, ask
from poolsrv.commands.operate import look
from poolsrv.errors import ControlError

_SHAPE = Shape(2, 4)
_CONNECTIONS = 64
_WORKLOAD = WORKLOADS["flask"]
_PATIENCE = 60.0


@dataclass(frozen=True)
class Cost:
    """Of one kind of event; `took` is what each took, in seconds."""

    name: str
    calm: _wrk.Load
    load: _wrk.Load
    took: list[float]
    silence: float  # the longest time between two answers
    lost_in_log: int


@dataclass(frozen=True)
class Kind:
    """Something that happens, to a server with these options."""

    name: str
    options: str
    event: Callable[[str, random.Random], None]


def measure(
    kinds: Iterable[Kind], count: int, seconds: int, seed: int, tell: Callable[[str], None]
) -> list[Cost]:
    """So many of each kind, spread over so many seconds. Raises Failed."""
    chance = random.Random(seed)
    found = []
    for kind in kinds:
        name, options = kind.name, kind.options
        with tempfile.TemporaryDirectory() as folder:
            control = str(Path(folder, "control"))
            server = Server(OURS.name, f"{OURS.command} --control {control} {options}")
            python = Path(sys.executable)
            with running(server, _WORKLOAD, _SHAPE, Path(folder), python) as (port, _):
                url = f"http://{HOST}:{port}/"
                tell(f"{name}: the load alone")
                calm = _wrk.load(url, max(seconds // 3, 1), _wrk.Run(_CONNECTIONS))
                tell(f"{name}: {count} in {seconds} s")
                with _asking(port) as silence:
                    load, took = _beside(url, seconds, count, partial(kind.event, control, chance))
            log = Path(folder, "log").read_text(errors="replace")
        lost = log.count("request was lost with it")
        found.append(Cost(name, calm, load, took, max(silence), lost))
    return found


def _beside(
    url: str, seconds: int, count: int, event: Callable[[], None]
) -> tuple[_wrk.Load, list[float]]:
    took: list[float] = []
    failures: list[Failed] = []

    def events() -> None:
        began = time.monotonic()
        for index in range(count):
            time.sleep(max(0.0, began + (index + 0.5) * seconds / count - time.monotonic()))
            before = time.monotonic()
            try:
                event()
            except Failed as failure:
                failures.append(failure)
                return
            took.append(time.monotonic() - before)

    thread = threading.Thread(target=events)
    thread.start()
    try:
        load = _wrk.load(url, seconds, _wrk.Run(_CONNECTIONS))
    finally:
        thread.join()
    if failures:
        raise failures[0]
    return load, took


@contextmanager
def _asking(port: int) -> Iterator[list[float]]:
    """Requests one after another; the times from each answer to the next."""
    times: list[float] = [0.0]
    ended = threading.Event()

    def ask_on() -> None:
        client = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE)
        last = time.monotonic()
        while not ended.is_set():
            try:
                client.request("GET", "/")
                response = client.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                client.close()  # it was in a worker that was killed
                continue
            if response.status == HTTPStatus.OK:
                now = time.monotonic()
                times.append(now - last)
                last = now
        client.close()

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def _ask(control: str, name: str) -> Mapping[str, Any]:
    """Not by the command: to start Python costs the two CPUs as much as a reload does."""
    try:
        answer = ask(Path(control), Command(name), timeout=_PATIENCE)
    except ControlError as error:
        raise Failed(f"{name}: {error}") from None
    if answer.error:
        raise Failed(f"{name}: {answer.error}")
    return answer.result


def _reload(control: str, _: random.Random) -> None:
    _ask(control, "reload")


def _kill(control: str, chance: random.Random) -> None:
    """A random worker's process, which is of a server that we have started."""
    try:
        ready = [worker.pid for worker in look(Path(control)).workers if worker.pid]
    except ControlError as error:
        raise Failed(f"workers: {error}") from None
    if not ready:
        raise Failed("there is no worker to kill: all wait to be started again")
    try:
        os.kill(chance.choice(ready), signal.SIGKILL)
    except ProcessLookupError:
        return  # it had ended


KINDS = {
    "reload": Kind("reload", "", _reload),
    "warm-up": Kind("reload, --warm-up /", "--warm-up /", _reload),
    "kill": Kind("kill -9", "", _kill),
}


def markdown(costs: list[Cost]) -> str:
    lines = [
        "| | p99 alone | p99 | requests | errors of wrk | longest event | longest silence"
        " | requests named in the log |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {len(cost.took)} x {cost.name} | {cost.calm.quantiles['99'] * 1e3:.1f} ms"
        f" | {cost.load.quantiles['99'] * 1e3:.1f} ms | {cost.load.requests}"
        f" | {cost.load.errors + cost.load.timeouts} | {max(cost.took):.2f} s"
        f" | {cost.silence * 1e3:.0f} ms | {cost.lost_in_log} |"
        for cost in costs
    ]
    return "\n".join(lines) + "\n"
