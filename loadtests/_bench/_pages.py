"""CPU of pages that compute for so long, by connections that ask at once: is there a step?

A cost that depends on how many wait shows here as a factor, whatever a page takes. What the
server has served is its own count, taken together with its CPU, and each load begins when
nothing of the one before is left.
"""

import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from loadtests._bench import _apps, _processes, _wrk
from loadtests._bench._cell import HOST, free_port, running
from loadtests._bench._servers import OURS, Failed
from loadtests._bench._workloads import Shape, Workload

_APP = Workload("counted", f"{_apps.__name__}:counted", 1, (), "computes as told")
_MICROSECONDS = (50, 100, 250, 500, 1000, 2000, 5000, 10000)
_CONNECTIONS = (1, 4, 16, 64, 256, 512)
# Factors are to this many.
_BASE = 4
_SECONDS = 2
_SERVED = re.compile(r"^poolsrv_requests_total\{.*\} (\S+)$", re.MULTILINE)


@dataclass
class Page:
    """CPU of the whole server for a page, in seconds: of each round, by connections."""

    microseconds: int
    cpu: dict[int, list[float]] = field(
        default_factory=lambda: {count: [] for count in _CONNECTIONS}
    )


def measure(shape: Shape, rounds: int, tell: Callable[[str], None]) -> list[Page]:
    """Raises Failed."""
    admin = free_port()
    ours = replace(OURS, command=OURS.command.replace("--admin off", f"--admin {HOST}:{admin}"))
    pages = [Page(microseconds) for microseconds in _MICROSECONDS]
    loops = _loops_in_a_microsecond()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running(ours, _APP, shape, Path(folder), Path(sys.executable)) as (port, pid),
    ):
        for turn in range(rounds):
            for page in pages:
                tell(f"round {turn + 1} of {rounds}: {page.microseconds} us")
                url = f"http://{HOST}:{port}/?{int(page.microseconds * loops)}"
                for count, found in page.cpu.items():
                    found.append(_cost(url, count, pid, admin))
    return pages


def _loops_in_a_microsecond() -> float:
    """What `counted` does of them here."""
    loops = 1_000_000
    began = time.process_time()
    list(_apps.counted({"QUERY_STRING": str(loops)}, lambda *_: lambda _: None))
    return loops / (time.process_time() - began) / 1e6


def _cost(url: str, connections: int, pid: int, admin: int) -> float:
    before = _idle(admin)
    cpu = _processes.cpu_seconds(pid)
    load = _wrk.load(url, _SECONDS, _wrk.Run(connections))
    cpu = _processes.cpu_seconds(pid) - cpu
    served = _served(admin) - before
    if load.errors or not served:
        raise Failed(f"{connections} connections: {load.errors} errors, {served} pages")
    return cpu / served


def _served(admin: int) -> int:
    with urllib.request.urlopen(f"http://{HOST}:{admin}/metrics") as answer:
        return round(sum(map(float, _SERVED.findall(answer.read().decode()))))


def _idle(admin: int) -> int:
    """What it has served when it serves nothing more: pages whose client has gone, too."""
    served = -1
    while served != (served := _served(admin)):
        time.sleep(0.05)  # longer than the longest page
    return served


def markdown(pages: list[Page], shape: Shape) -> str:
    lines = [
        f"# us of CPU for a page, {shape}, and the factor to {_BASE} connections",
        "",
        "| computes for | " + " | ".join(map(str, _CONNECTIONS)) + " |",
        "| --- |" + " ---: |" * len(_CONNECTIONS),
    ]
    for page in pages:
        base = median(page.cpu[_BASE])
        cells = [f"{1e6 * median(cpu):.0f} ({median(cpu) / base:.2f})" for cpu in page.cpu.values()]
        lines.append(f"| {page.microseconds} us | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
