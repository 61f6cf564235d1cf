"""The load tests, run for a few seconds against a real server.

In a process of their own: importing locust patches the one that does.
"""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import ROOT, Server

pytestmark = pytest.mark.once

SCENARIOS = ["Hello", "Json", "IoBound", "CpuBound", "Upload", "Mixed"]


def run_locust(
    server: Server, results: Path, *arguments: str
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, str]]]:
    """A run of three seconds and the rows of its table."""
    command = [sys.executable, "-m", "locust", "-f", "loadtests/", "--headless", "--only-summary"]
    command += ["--users", "6", "--spawn-rate", "6", "--run-time", "3s", "--csv", str(results)]
    command += ["--host", server.url, "--metrics-url", f"{server.admin_url}/metrics"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    with results.with_name(f"{results.name}_stats.csv").open(newline="") as table:
        return done, list(csv.DictReader(table))


@pytest.fixture
def demo(server: Callable[..., Server]) -> Server:
    return server("poolsrv.demo:application", processes=2, threads=4)


def test_every_scenario(demo: Server, tmp_path: Path) -> None:
    done, rows = run_locust(demo, tmp_path / "run", *SCENARIOS)
    assert done.returncode == 0, done.stderr
    asked = {row["Name"]: row for row in rows if row["Type"] in ("GET", "POST")}
    assert set(asked) == {"/hello", "/json", "/sleep", "/cpu", "/upload"}
    for row in asked.values():
        assert int(row["Request Count"]) > 0
        assert int(row["Failure Count"]) == 0


def test_the_figures_of_the_server_stand_beside(demo: Server, tmp_path: Path) -> None:
    done, rows = run_locust(demo, tmp_path / "run", "Mixed", "--tags", "hello", "io")
    assert done.returncode == 0, done.stderr
    block = done.stdout.partition("Server  ")[2].splitlines()[1:]
    figures = {line[:24].strip(): float(line[24:36].replace(",", "")) for line in block}
    assert set(figures) == {
        "requests/s",
        "refused/s",
        "thread utilization %",
        "queue time, mean us",
    }
    assert figures["requests/s"] > 0
    assert figures["refused/s"] == 0
    assert 0 < figures["thread utilization %"] <= 100
    # None among locust's milliseconds.
    assert {row["Name"] for row in rows if row["Type"]} == {"/hello", "/sleep"}


def test_an_open_loop_keeps_its_rate(demo: Server, tmp_path: Path) -> None:
    done, rows = run_locust(demo, tmp_path / "run", "Hello", "--user-rate", "5")
    assert done.returncode == 0, done.stderr
    (row,) = (row for row in rows if row["Name"] == "/hello")
    # Six users for three seconds.
    assert 0 < int(row["Request Count"]) <= 6 * 5 * 4


def test_a_run_past_a_threshold_fails(demo: Server, tmp_path: Path) -> None:
    done, _ = run_locust(demo, tmp_path / "run", "IoBound", "--max-p99", "1")
    assert done.returncode == 1
    assert "the 99th percentile is" in done.stderr
