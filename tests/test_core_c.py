"""The C tests of the other pure parts, built with sanitizers."""

import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "c"


@pytest.mark.parametrize("part", ["channel", "scoreboard", "schedule", "dispatch"])
def test_part(part: str, tmp_path: Path) -> None:
    run = subprocess.run(
        ["make", "--no-print-directory", "-C", FOLDER, f"check-{part}", f"BUILD={tmp_path}"],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout
