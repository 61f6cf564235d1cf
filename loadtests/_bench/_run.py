"""Rounds of cells, server beside server: A B A B, each round begun by another.

Whatever happens to the machine meanwhile happens to all of them. Writes JSON
after each cell, so that an interrupted run is a shorter run.
"""

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests._bench import _cell, _wrk
from loadtests._bench._cell import Cell, Conditions
from loadtests._bench._servers import OURS, PEERS, Missing, Server, versions
from loadtests._bench._workloads import Shape, Workload
from poolsrv import __version__


@dataclass(frozen=True)
class Results:
    """What a run found, and where. The shape of the JSON file."""

    machine: dict[str, Any]
    duration: int
    rounds: int
    servers: dict[str, dict[str, str]]  # name: command, version
    skipped: dict[str, str]  # what was not measured, and why
    cells: list[Cell] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Results":
        """OSError, or ValueError if the file is none of ours."""
        found = json.loads(path.read_text())
        try:
            return cls(**{**found, "cells": [Cell(**cell) for cell in found["cells"]]})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not of this bench: {error}") from None


@dataclass(frozen=True)
class Plan:
    """What to measure; None of `names` or `shapes`: all of them."""

    workloads: Sequence[Workload]
    shapes: Sequence[Shape] | None
    names: Sequence[str] | None
    more: Sequence[Server]
    peers: Path  # the interpreter that has them
    duration: int
    warmup: int
    rounds: int


def run(plan: Plan, save: Callable[[Results], None], tell: Callable[[str], None]) -> Results:
    """Raises Missing before anything is measured."""
    tool = _wrk.version()
    servers, skipped = _servers(plan)
    workloads = []
    for workload in plan.workloads:
        if workload.needs and importlib.util.find_spec(workload.needs) is None:
            skipped[workload.name] = f"the workload needs more: pip install {workload.needs}"
        else:
            workloads.append(workload)
    cells = [
        (workload, shape) for workload in workloads for shape in plan.shapes or workload.shapes
    ]
    for name, reason in skipped.items():
        tell(f"without {name}: {reason}")
    count = len(cells) * len(servers) * plan.rounds
    # Starting and ending a server takes a second or two.
    minutes = count * (plan.duration + plan.warmup + 2) / 60
    tell(f"{count} cells, about {minutes:.0f} minutes")
    results = Results(
        machine=machine() | {"wrk": tool},
        duration=plan.duration,
        rounds=plan.rounds,
        servers={
            server.name: {"command": server.command, "version": version}
            for server, (_, version) in servers.items()
        },
        skipped=skipped,
    )
    conditions = Conditions(
        plan.duration, plan.warmup, {server.name: python for server, (python, _) in servers.items()}
    )
    with _cell.surroundings():
        for number, workload, shape, server in _order(plan.rounds, cells, list(servers)):
            cell = _cell.measure(server, workload, shape, number, conditions)
            results.cells.append(cell)
            tell(line(cell))
            save(results)
    return results


def _order(
    rounds: int, cells: Sequence[tuple[Workload, Shape]], servers: list[Server]
) -> Iterator[tuple[int, Workload, Shape, Server]]:
    for number in range(1, rounds + 1):
        turn = (number - 1) % len(servers)
        for workload, shape in cells:
            for server in servers[turn:] + servers[:turn]:
                yield number, workload, shape, server


def _servers(plan: Plan) -> tuple[dict[Server, tuple[Path, str]], dict[str, str]]:
    """The servers to measure with interpreter and version, and why not the others."""
    own = Path(sys.executable)
    installed = {own: versions(own)}
    installed[plan.peers] = versions(plan.peers)
    known = {server.name: server for server in (OURS, *PEERS)}
    if unknown := set(plan.names or ()) - known.keys():
        raise Missing(f"there is no server {min(unknown)}: {', '.join(known)}")
    found: dict[Server, tuple[Path, str]] = {}
    skipped = {}
    for name in plan.names or known:
        server = known[name]
        python = own if server is OURS else plan.peers
        if server.package is None:
            found[server] = (python, __version__)
        elif version := installed[python].get(server.package.lower()):
            found[server] = (python, version)
        else:
            skipped[name] = f"pip install {server.package} (for {python})"
    for server in plan.more:
        found[server] = (plan.peers, "")
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise Missing(f"no server is installed: {reasons}")
    return found, skipped


def machine() -> dict[str, Any]:
    model = "unknown"
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            model = text.partition(":")[2].strip()
            break
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpus": len(os.sched_getaffinity(0)),
        "model": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def line(cell: Cell) -> str:
    """A cell as it passes by."""
    head = f"{cell.round}  {cell.workload:<7} {cell.shape:<5} {cell.server:<12}"
    if cell.failed:
        return f"{head} failed: {cell.failed}"
    return (
        f"{head} {cell.rate:>9,.0f}/s {cell.per_cpu:>10,.0f}/CPU s"
        f"  p50 {1000 * cell.latency['50']:.2f} ms  p99 {1000 * cell.latency['99']:.2f} ms"
        f"  errors {cell.errors}  timeouts {cell.timeouts}"
    )
