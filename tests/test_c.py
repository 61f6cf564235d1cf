"""The pure C parts: their own tests and corpus, built with sanitizers; and their layers."""

import fcntl
import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

FOLDER = Path(__file__).parent / "c"
BUILD = Path(__file__).parent.parent / "build" / "c"
CORE = Path(__file__).parent.parent / "poolsrv" / "csrc"

# What each room may include, besides itself. A room is a folder, and says in
# which process its code runs.
MAY_INCLUDE = {
    "common": set[str](),
    "protocol": {"common"},
    "supervisor": {"common", "protocol"},
    "worker": {"common", "protocol"},
    "python": {"common", "protocol", "supervisor", "worker"},
}


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Every test program; what they share is compiled once, in parallel."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # tests may run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = make("build", f"-j{os.cpu_count()}")
    assert run.returncode == 0, run.stdout


def make(target: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "-C", FOLDER, target, f"BUILD={BUILD}", *options],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
        check=False,
    )


def programs() -> list[str]:
    names = [f"check-{path.stem.removeprefix('test_')}" for path in FOLDER.glob("*/test_*.c")]
    corpora = [f"replay-{path.name}" for path in (FOLDER / "protocol/corpus").iterdir()]
    return sorted(names) + sorted(corpora)


@pytest.mark.parametrize("program", programs())
def test_program(program: str) -> None:
    run = make(program)
    assert run.returncode == 0, run.stdout


def includes(path: Path) -> list[str]:
    return re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("room", MAY_INCLUDE)
def test_a_room_includes_only_what_lies_below_it(room: str) -> None:
    sources = list((CORE / room).rglob("*.[ch]"))
    assert sources
    for path in sources:
        for included in includes(path):
            assert (CORE / included).is_file(), f"{path.name}: {included} has no room"
            assert included.split("/")[0] in MAY_INCLUDE[room] | {room}, (
                f"{path.relative_to(CORE)} may not include {included}"
            )


def test_every_source_has_a_room() -> None:
    assert {path.name for path in CORE.iterdir()} == set(MAY_INCLUDE)


def test_only_bindings_know_python() -> None:
    for path in CORE.rglob("*.[ch]"):
        if path.relative_to(CORE).parts[0] != "python":
            assert "Python.h" not in path.read_text(), path
