"""Each message for operators has a code, a cause, an effect and a remedy; ERRORS.md says so."""

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolsrv import log, operator_messages
from poolsrv.operator_messages import NOTES, Message, messages, reference

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "ERRORS.md"
LOGGERS = {"_log", "logger"}
METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
# What an application writes to wsgi.errors is its own.
APPLICATIONS = "poolsrv/worker/errors.py"


def test_the_committed_reference_is_current() -> None:
    assert DOCUMENT.read_text() == reference(), "run `make docs`"


def test_a_code_stands_once() -> None:
    codes = [message.code for message in messages()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"POOL\d{3}", code) for code in codes)


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.code)
def test_each_message_is_explained_and_used(message: Message) -> None:
    for words in (message.cause, message.effect, message.remedy):
        assert words.endswith(".") or words.endswith("`")
    if message in NOTES.values():
        return
    (name,) = [name for name, value in vars(operator_messages).items() if value is message]
    assert any(f"say.{name}" in path.read_text() for path in (ROOT / "poolsrv").rglob("*.py"))


def test_the_notes_of_the_core_are_those_of_the_table() -> None:
    """And each is said somewhere."""
    core = ROOT / "poolsrv" / "csrc"
    rows = re.findall(r"X\((NOTE_\w+), (\d+), NOTE_\w+\)", (core / "worker/notes.h").read_text())
    assert {int(number) for _, number in rows} == set(NOTES)
    text = "".join(path.read_text() for path in core.rglob("*.c"))
    assert [name for name, _ in rows if name not in text] == []


def calls() -> Iterator[tuple[str, ast.expr]]:
    """Where something is logged, and the message."""
    for path in (ROOT / "poolsrv").rglob("*.py"):
        place = str(path.relative_to(ROOT))
        if place == APPLICATIONS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called, method = node.func.value, node.func.attr
            if isinstance(called, ast.Name) and called.id in LOGGERS and method in METHODS:
                yield f"{place}:{node.lineno}", node.args[1 if method == "log" else 0]
            if method in ("with_stack", "_failed"):
                yield f"{place}:{node.lineno}", node.args[1 if method == "with_stack" else 0]


def test_nothing_is_logged_that_has_no_code() -> None:
    found = list(calls())
    assert len(found) > 30
    literal = [place for place, text in found if isinstance(text, ast.Constant | ast.JoinedStr)]
    assert literal == []


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_code_is_in_the_log(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("poolsrv")
    before = logger.handlers, logger.level, logger.propagate
    try:
        log.setup("info", format, "supervisor")
        logger.info(operator_messages.TOOK_OVER, 7)
        logger.info("the application's own")
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
    first, second = capfd.readouterr().err.splitlines()
    if format == "json":
        assert json.loads(first)["code"] == "POOL403"
        assert json.loads(first)["message"] == "generation 7 has taken over"
        assert "code" not in json.loads(second)
    else:
        assert "] POOL403 generation 7 has taken over" in first
        assert "] the application's own" in second
