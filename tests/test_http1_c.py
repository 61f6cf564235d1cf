"""The C tests of the parsers, built with sanitizers: every case at every split, and the corpus."""

import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "c"


def test_parsers(tmp_path: Path) -> None:
    run = subprocess.run(
        ["make", "--no-print-directory", "-C", FOLDER, "check", f"BUILD={tmp_path}"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout
