"""The C tests of the other pure parts, built with sanitizers."""

import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "c"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of them: what they share is compiled once."""
    return tmp_path_factory.mktemp("core")


@pytest.mark.parametrize(
    "part",
    [
        "channel",
        "scoreboard",
        "schedule",
        "forecast",
        "held",
        "dispatch",
        "output",
        "exchange",
        "allocation",
    ],
)
def test_part(part: str, build: Path) -> None:
    run = subprocess.run(
        ["make", "--no-print-directory", "-C", FOLDER, f"check-{part}", f"BUILD={build}"],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout
