"""Delay against load, policy beside policy, in the model: a table and curves.

All policies are given the same requests, so what differs between them is
their doing. Delays are in units of the mean service time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loadtests._bench import _svg
from loadtests._bench._model import DISTRIBUTIONS, POLICIES, simulate, trace
from loadtests._bench._workloads import Shape


@dataclass(frozen=True)
class Case:
    """What the application is like: mean service time in seconds, and the part
    of the time for which a worker's GIL is wanted when all its threads are busy
    and do not hinder one another."""

    mean: float
    gil: float
    shows: str


CASES = {
    "waiting": Case(0.01, 0.0, "requests of 10 ms that wait for others"),
    "computing": Case(0.01, 0.5, "requests of 10 ms that half occupy the GIL of a full worker"),
    "fast": Case(0.0001, 0.0, "requests of 0.1 ms: poolsrv keeps a backlog in the workers"),
}

SHAPES = tuple(map(Shape.parse, ("2x1", "2x4", "8x4", "8x32", "64x1", "64x64")))
LOADS = (0.5, 0.7, 0.9, 0.95)

# The first of a run find an emptier pool than the others.
WARMUP = 0.2
# A large pool needs more to fill.
_PER_THREAD = 10
# The smallest delay that a logarithmic scale shows.
_FLOOR = 0.01


@dataclass(frozen=True)
class Point:
    case: str
    distribution: str
    shape: str
    load: float
    policy: str
    p50: float
    p99: float
    mean: float
    # Of the worker that served the most, relative to an equal share.
    busiest: float


def curves(
    cases: list[str], requests: int, seed: int, tell: Callable[[str], None]
) -> Iterator[Point]:
    """`requests` at least, for each point of a curve."""
    for name in cases:
        for distribution in DISTRIBUTIONS:
            for shape in SHAPES:
                tell(f"{name}, {distribution}, {shape}")
                for load in LOADS:
                    yield from _points(name, distribution, shape, load, requests, seed)


def _points(
    name: str, distribution: str, shape: Shape, load: float, requests: int, seed: int
) -> Iterator[Point]:
    case = CASES[name]
    threads = shape.processes * shape.threads
    coming = trace(
        seed,
        max(requests, _PER_THREAD * threads),
        load * threads / case.mean,
        case.mean,
        DISTRIBUTIONS[distribution],
    )
    for policy in POLICIES:
        pool = simulate(coming, *shape, policy, gil=case.gil / shape.threads, seed=seed)
        counted = sorted(pool.ended, key=lambda r: r.arrival)[int(WARMUP * len(coming)) :]
        delays = sorted(max(request.delay, 0.0) / case.mean for request in counted)
        served = [0] * shape.processes
        for request in counted:
            served[request.worker] += 1
        yield Point(
            name,
            distribution,
            str(shape),
            load,
            policy,
            quantile(delays, 0.5),
            quantile(delays, 0.99),
            sum(delays) / len(delays),
            max(served) * shape.processes / len(counted),
        )


def quantile(ordered: list[float], share: float) -> float:
    """The least value that this share of the values does not exceed."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def markdown(points: list[Point], requests: int, seed: int) -> str:
    lines = [
        "# Where requests go, in a model",
        "",
        f"Poisson arrivals, at least {requests} requests for each row, seed {seed}; the same"
        " requests for every policy. A delay is what a request takes beyond its own service time,"
        " in units of the mean service time: p50 / p99. In brackets the share of the busiest"
        " worker, 1 being its equal share.",
    ]
    for case, distribution in dict.fromkeys((p.case, p.distribution) for p in points):
        here = [p for p in points if (p.case, p.distribution) == (case, distribution)]
        lines += ["", f"## {case}, {distribution}: {CASES[case].shows}", ""]
        lines.append("| shape | load | " + " | ".join(POLICIES) + " |")
        lines.append("| --- | --: |" + " --: |" * len(POLICIES))
        for shape, load in dict.fromkeys((p.shape, p.load) for p in here):
            row = [
                f"{p.p50:.2f} / {p.p99:.2f} [{p.busiest:.2f}]"
                for p in here
                if (p.shape, p.load) == (shape, load)
            ]
            lines.append(f"| {shape} | {load:g} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def plot(points: list[Point], case: str) -> str:
    """A panel for each shape and distribution: p99 solid, p50 dashed. SVG."""
    here = [p for p in points if p.case == case]
    panels: list[_svg.Panel] = []
    for shape, distribution in sorted(
        dict.fromkeys((p.shape, p.distribution) for p in here),
        key=lambda key: [str(shape) for shape in SHAPES].index(key[0]),
    ):
        lines = []
        # The lower, the thicker: so lines that coincide are all seen.
        for place, policy in enumerate(POLICIES):
            run = [
                p
                for p in here
                if (p.shape, p.distribution, p.policy) == (shape, distribution, policy)
            ]
            width = 1.4 + 0.8 * place
            p99 = [(p.load, max(p.p99, _FLOOR)) for p in run]
            p50 = [(p.load, max(p.p50, _FLOOR)) for p in run]
            lines += [_svg.Line(policy, p99, width=width), _svg.Line(policy, p50, True, width)]
        panels.append(
            _svg.Lines(
                f"{shape}, {distribution}",
                "load",
                "delay / mean service",
                [(load, f"{load:g}") for load in LOADS],
                lines,
            )
        )
    return _svg.page(f"{CASES[case].shows}: p99, and p50 dashed", panels, len(DISTRIBUTIONS))
