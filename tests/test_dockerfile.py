"""dist/Dockerfile: the instructions that decide how the server runs and ends."""

import json
import re
from pathlib import Path

import pytest

from poolsrv.settings.sources import from_options

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent


def instructions() -> list[tuple[str, str]]:
    """Name and argument of each, comments left out and lines that go on joined."""
    text = (ROOT / "dist" / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, argument) for name, argument in lines]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    starts = [index for index, (name, _) in enumerate(found) if name == "FROM"]
    return found[starts[-1] :]


def test_the_server_is_pid_1_and_not_root() -> None:
    stage = dict(last_stage())
    user, group = map(int, stage["USER"].split(":"))
    assert user > 0
    assert group > 0
    assert json.loads(stage["CMD"])[:2] == ["poolsrv", "serve"]
    assert stage["STOPSIGNAL"] == "SIGTERM"
    names = [name for name, _ in last_stage()]
    assert "ENTRYPOINT" not in names
    # What is installed belongs to root: the server cannot change it.
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))


def test_no_compiler_is_in_the_image() -> None:
    assert any("gcc" in argument for _, argument in instructions())
    assert not any("gcc" in argument for _, argument in last_stage())


def test_its_options_are_those_of_the_server() -> None:
    given = [argument for name, argument in last_stage() if name == "ENV"]
    pairs = dict(pair.split("=", 1) for pair in " ".join(given).split())
    names = {name.removeprefix("POOLSRV_").lower(): value for name, value in pairs.items()}
    settings = from_options(application="mysite.wsgi", **names)
    assert settings.graceful_timeout < 10
    ports = {str(address.port) for address in (*settings.bind, settings.admin)}  # type: ignore[union-attr]
    (exposed,) = [argument for name, argument in last_stage() if name == "EXPOSE"]
    assert set(exposed.split()) == ports
