"""Lines of the log: their form, and that nothing from outside gets through raw."""

import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolsrv.log import escape, setup

logger = logging.getLogger("poolsrv")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def logged(capfd: pytest.CaptureFixture[str]) -> str:
    written = capfd.readouterr()
    assert written.out == ""
    return written.err


def test_a_text_line(capfd: pytest.CaptureFixture[str]) -> None:
    setup("info", "text", "worker 2")
    logger.info("request is late", extra={"fields": {"path": "/a b", "seconds": 1.5, "id": "x1"}})
    logger.debug("not shown")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} INFO    worker 2\[\d+\] "
        r'request is late path="/a b" seconds=1\.5 id=x1\n',
        logged(capfd),
    )


def test_a_json_line(capfd: pytest.CaptureFixture[str]) -> None:
    setup("debug", "json", "exporter")
    logger.warning("scrape\nis late", extra={"fields": {"path": "/\x1b[2J"}})
    line = logged(capfd)
    assert line.count("\n") == 1
    assert line.isascii()
    event = json.loads(line)
    assert event["level"] == "warning"
    assert event["role"] == "exporter"
    assert event["message"] == "scrape\nis late"
    assert event["path"] == "/\x1b[2J"


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_traceback_cannot_forge_a_line(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    setup("info", format, "worker 1")
    try:
        raise ValueError("a\n2026-01-01 00:00:00 ERROR forged\x1b[31m\r\x85\u2028")
    except ValueError:
        logger.exception("application failed")
    first, *rest = logged(capfd).removesuffix("\n").split("\n")
    assert "application failed" in first
    assert all(line.startswith("    ") for line in rest)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", "\n".join([first, *rest]))
    assert "ValueError: a" in "\n".join([first, *rest])


def test_setup_in_a_child_replaces_the_role(capfd: pytest.CaptureFixture[str]) -> None:
    setup("info", "text", "supervisor")
    setup("info", "text", "template")
    logger.info("ready")
    assert re.fullmatch(r".* template\[\d+\] ready\n", logged(capfd))


@given(st.text(alphabet=st.characters()))
def test_escaped_text_is_one_printable_line_that_can_be_encoded(text: str) -> None:
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    assert not re.search("[\x00-\x1f\x7f-\x9f]", escaped)
    escaped.encode()


def test_printable_text_stays_as_it_is() -> None:
    assert escape("/größe?q=✓") == "/größe?q=✓"
    assert escape("a\nb\x1b") == r"a\nb\x1b"
