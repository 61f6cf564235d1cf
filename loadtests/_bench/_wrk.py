"""wrk, the client: runs it and reads what its script reports."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtests._bench._servers import Failed, Missing

# An answer that takes longer counts as a timeout.
_TIMEOUT = "2s"
# What wrk may take beyond the duration it was told.
_PATIENCE = 20.0

QUANTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Load:
    """Times in seconds; `quantiles` of latency by percent, `apart` those of a
    class of requests, for scripts that tell them apart."""

    requests: int  # answered with a status below 400
    duration: float
    quantiles: dict[str, float]
    errors: int
    timeouts: int
    client_cpu: float
    apart: dict[str, dict[str, float]]


def version() -> str:
    """The first line of `wrk --version`; Missing if there is no wrk."""
    if shutil.which("wrk") is None:
        raise Missing("wrk is missing: apt-get install wrk")
    done = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).partition(" Copyright")[0].strip()


@dataclass(frozen=True)
class Run:
    """What one wrk does. `close`: each request on a connection of its own."""

    connections: int
    script: str = "report.lua"
    close: bool = False


def load(url: str, seconds: int, kept: Run, new: Run | None = None) -> Load:
    """Put load on a server for so long; that of `new` beside the other. Raises Failed.

    With both, their latencies are told apart as `kept` and `new`.
    """
    before = os.times()
    with ExitStack() as stack:
        processes = [stack.enter_context(_running(url, seconds, run)) for run in (kept, new) if run]
        try:
            outputs = [p.communicate(timeout=seconds + _PATIENCE)[0] for p in processes]
        except subprocess.TimeoutExpired:
            raise Failed(f"wrk has not ended {_PATIENCE:g} s after its time") from None
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])  # of children that were waited for
    first, *others = (parse(output.decode(errors="replace"), cpu) for output in outputs)
    return _beside(first, others[0]) if others else first


@contextmanager
def _running(url: str, seconds: int, run: Run) -> Iterator["subprocess.Popen[bytes]"]:
    argv = ["wrk", "--threads", "1", "--connections", str(run.connections)]
    argv += ["--duration", f"{seconds}s", "--timeout", _TIMEOUT]
    argv += ["--script", str(Path(__file__).with_name(run.script))]
    if run.close:
        argv += ["--header", "Connection: close"]
    # A session of its own: a Ctrl-C is ours to answer.
    with subprocess.Popen(
        [*argv, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _beside(kept: Load, new: Load) -> Load:
    return replace(
        kept,
        requests=kept.requests + new.requests,
        errors=kept.errors + new.errors,
        timeouts=kept.timeouts + new.timeouts,
        apart={"kept": kept.quantiles, "new": new.quantiles},
    )


def parse(output: str, client_cpu: float) -> Load:
    """What the script printed; Failed if it did not."""
    lines = [line for line in output.splitlines() if line.startswith("JSON ")]
    if not lines:
        raise Failed(f"wrk: {output.strip()[-300:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("JSON "))
    return Load(
        requests=found["requests"] - found["status"],
        duration=found["duration"] / 1e6,
        quantiles={name: us / 1e6 for name, us in found["quantiles"].items()},
        errors=sum(found[kind] for kind in ("connect", "read", "write", "status")),
        timeouts=found["timeout"],
        client_cpu=client_cpu,
        apart={name: histogram_quantiles(found[name]) for name in _CLASSES if found.get(name)},
    )


# What mixed.lua tells apart.
_CLASSES = ("hello", "sleep")


def histogram_quantiles(buckets: Iterable[tuple[float, int]]) -> dict[str, float]:
    """Quantiles in seconds from (microseconds, count), in any order."""
    ordered = sorted(buckets)
    total = sum(count for _, count in ordered)
    found, seen, place = {}, 0, -1
    for quantile in QUANTILES:
        while seen < quantile / 100 * total:
            place += 1
            seen += ordered[place][1]
        found[f"{quantile:g}"] = ordered[place][0] / 1e6
    return found
