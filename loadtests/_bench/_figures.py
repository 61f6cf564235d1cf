"""What many cells come to: one row for each server, workload and shape."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from loadtests._bench._cell import Cell
from loadtests._bench._workloads import WORKLOADS, Shape


@dataclass(frozen=True)
class Spread:
    """Median and bounds of a figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """Of all rounds that did not fail; seconds and bytes. `latency` is by percent,
    `apart` the p99 by class of requests."""

    shape: str  # what the server really ran with
    rounds: int
    failures: list[str]
    rate: Spread
    per_cpu: Spread
    of_ideal: float | None
    latency: dict[str, float]
    apart: dict[str, float]
    errors: int
    timeouts: int
    cores: float  # that the server used
    client_cores: float
    elsewhere: float
    memory: float
    idle: int | None  # the fewest that stayed open
    memory_per_idle: float | None

    @property
    def throughput(self) -> Spread:
        """What to compare servers by: threads that sleep cost no CPU, but are all in use."""
        return self.per_cpu if self.of_ideal is None else self.rate


class Key(NamedTuple):
    workload: str
    asked: str  # the shape
    server: str


def rows(cells: Iterable[Cell]) -> tuple[dict[Key, Row], dict[Key, list[str]]]:
    """The rows in order of their first cell, and why the others failed in every round."""
    groups: dict[Key, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(Key(cell.workload, cell.asked, cell.server), []).append(cell)
    found: dict[Key, Row] = {}
    failed: dict[Key, list[str]] = {}
    for key, group in groups.items():
        failures = [cell.failed for cell in group if cell.failed]
        if good := [cell for cell in group if not cell.failed]:
            found[key] = _row(good, failures)
        else:
            failed[key] = failures
    return found, failed


def _row(cells: list[Cell], failures: list[str]) -> Row:
    shape = cells[0].shape
    workload = WORKLOADS[cells[0].workload]
    rate = Spread.of([cell.rate for cell in cells])
    ideal = workload.ideal(Shape.parse(shape))
    per_idle = median(cell.memory_per_idle for cell in cells)
    return Row(
        shape=shape,
        rounds=len(cells),
        failures=failures,
        rate=rate,
        per_cpu=Spread.of([cell.per_cpu for cell in cells]),
        of_ideal=rate.median / ideal if ideal else None,
        latency={q: median(cell.latency[q] for cell in cells) for q in cells[0].latency},
        apart={
            name: median(cell.apart[name]["99"] for cell in cells if name in cell.apart)
            for name in cells[0].apart
        },
        errors=sum(cell.errors for cell in cells),
        timeouts=sum(cell.timeouts for cell in cells),
        cores=median(cell.cpu / cell.duration for cell in cells),
        client_cores=median(cell.client_cpu / cell.duration for cell in cells),
        elsewhere=median(cell.elsewhere for cell in cells),
        memory=median(cell.memory for cell in cells),
        idle=min(cell.idle for cell in cells) if workload.idle else None,
        memory_per_idle=per_idle if workload.idle else None,
    )
