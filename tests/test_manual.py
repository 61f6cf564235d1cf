"""The manual page is that of the rows, and man(1) understands it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from poolsrv import cli
from poolsrv.manual import page
from poolsrv.settings.rows import ROWS, key

PAGE = Path(__file__).parent.parent / "docs" / "poolsrv.1"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_every_option_and_command_can_be_read() -> None:
    command = ["groff", "-man", "-Tascii", "-ww", "-P-cbou", str(PAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    words = done.stdout.split()
    for name in ROWS:
        assert name == "application" or f"--{key(name)}" in [word.rstrip(",") for word in words]
    assert set(cli.COMMANDS) <= set(words)


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_the_page_has_no_faults() -> None:
    command = ["mandoc", "-Tlint", "-Werror", str(PAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""
