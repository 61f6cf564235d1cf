"""The processes of a server: which they are, what they use, how they end.

From /proc (proc(5)). A server's root is started in a session of its own, so
that orphans are found as well.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests._bench._servers import Failed

# Seconds: how finely the kernel tells CPU time.
TICK = 1 / os.sysconf("SC_CLK_TCK")

# What a server gets to start.
_STARTUP = 10.0

# What a server gets to stop by itself; none is measured for that.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Process:
    parent: int
    session: int
    ticks: int  # of CPU, children that it has reaped included
    zombie: bool


def processes() -> dict[int, Process]:
    """Every process of the machine, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        # The name, in parentheses, may hold anything.
        fields = stat.rpartition(")")[2].split()
        ticks = sum(int(field) for field in fields[11:15])
        found[int(entry.name)] = Process(int(fields[1]), int(fields[3]), ticks, fields[0] in "ZX")
    return found


def tree(root: int) -> dict[int, Process]:
    """`root`, its descendants, and what is left of its session."""
    everyone = processes()
    inside: dict[int, Process] = {}
    new = {pid for pid, process in everyone.items() if root in (pid, process.session)}
    while new:
        inside |= {pid: everyone[pid] for pid in new}
        new = {pid for pid, process in everyone.items() if process.parent in new} - inside.keys()
    return inside


@contextmanager
def serving(
    argv: list[str], log: Path, serves: Callable[[], bool], folder: Path | None = None
) -> Iterator[int]:
    """The pid of a server that is started with these words, once it `serves`. Raises Failed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _STARTUP
        while not serves():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{argv[0]} does not serve: {log.read_text()[-500:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        end(process)


def is_running(pid: int) -> bool:
    process = processes().get(pid)
    return process is not None and not process.zombie


def cpu_seconds(root: int) -> float:
    return sum(process.ticks for process in tree(root).values()) * TICK


def memory(root: int) -> int:
    """Bytes of the tree's proportional set size: shared pages count once."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked, or is a zombie
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024


def machine_seconds() -> float:
    """CPU seconds that the machine has worked."""
    user, nice, system, _idle, _iowait, irq, softirq = (
        int(field) for field in Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    )
    return (user + nice + system + irq + softirq) * TICK


def end(root: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to the root, and a while later SIGKILL to what is left, each by its pid."""
    root.send_signal(signal.SIGTERM)
    try:
        root.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        root.send_signal(signal.SIGSTOP)  # lest it replaces those who are killed first
    deadline = time.monotonic() + _PATIENCE
    while left := [pid for pid, process in tree(root.pid).items() if not process.zombie]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} cannot be ended")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended while we looked
        time.sleep(0.01)  # orphans of others have no event for us
    root.wait()
