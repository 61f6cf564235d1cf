"""The manual page as man(1) shows it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from poolsrv.commands import cli
from poolsrv.settings.rows import ROWS, key

pytestmark = pytest.mark.once

PAGE = Path(__file__).parent.parent / "docs" / "poolsrv.1"


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_every_option_and_command_can_be_read() -> None:
    words = re.sub(".\\x08", "", mandoc("-Tascii")).replace(",", "").split()
    for name in ROWS:
        assert name == "application" or f"--{key(name)}" in words
    assert set(cli.COMMANDS) <= set(words)


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_the_page_has_no_faults() -> None:
    assert mandoc("-Tlint", "-Werror") == ""


def mandoc(*options: str) -> str:
    command = ["mandoc", *options, str(PAGE)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
