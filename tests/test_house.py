"""The house stays one in which a line is found: short files, and names that tell the file."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "poolsrv"
CORE = PACKAGE / "csrc"

LONG = 400
REASON = "Long, because"
# How far down a file's own words at its top may reach.
TOP = 25

# The start of a line, in column 0: the type of a function on a line of its own.
EXTERNAL = re.compile(r"^(?!static\b)[A-Za-z_][\w ]*\*?\n(\w+)\(", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

# Files whose functions have another prefix, and why.
PREFIXES = {
    "protocol/http1_head.c": ("http1_", "one protocol, declared in http1.h"),
    "protocol/http1_answer.c": ("http1_", "one protocol, declared in http1.h"),
    "protocol/lex.c": ("http1_", "the lexer of that protocol"),
    "protocol/tls_names.c": ("tls_", "names of versions and of ciphers: two subjects, one table"),
    "python/dispatcher_object.c": ("core_", "its part of the module, declared in core.h"),
    "python/events.c": ("core_", "its part of the module, declared in core.h"),
    "python/fields.c": ("core_", "its part of the module, declared in core.h"),
    "python/options.c": ("core_", "its part of the module, declared in core.h"),
    "python/routes_object.c": ("core_", "its part of the module, declared in core.h"),
    "python/scoreboard_object.c": ("core_", "its part of the module, declared in core.h"),
    "python/shared_object.c": ("core_", "its part of the module, declared in core.h"),
    "python/interpreter.c": ("core_", "its part of the module, declared in core.h"),
    "python/worker_object.c": ("core_", "its part of the module, declared in core.h"),
    "python/wsgi/app.c": ("core_", "its part of the module, declared in core.h"),
    "python/wsgi/file_wrapper.c": ("core_", "its part of the module, declared in core.h"),
    "python/wsgi/input.c": ("core_", "its part of the module, declared in core.h"),
    "python/wsgi/set_timeout.c": ("core_", "its part of the module, declared in core.h"),
    "python/wsgi/takeover.c": ("core_", "its part of the module, declared in core.h"),
    "python/wsgi/start_response.c": ("core_", "its part of the module, declared in core.h"),
    "supervisor/heir.c": ("dispatch_", "methods of a Dispatch that concern another: dispatch.h"),
    "supervisor/joined.c": ("dispatch_", "methods of a Dispatch that concern all that are joined"),
    "supervisor/slots.c": ("dispatch_", "methods of a Dispatch that concern a slot: dispatch.h"),
}
FUNCTIONS = {
    "PyInit__core": "Python wants this name",
    "file_types_init": "what the file wrapper knows of classes, set up with the module",
    "file_types_clear": "what the file wrapper knows of classes, set up with the module",
    "answer_result": "of wsgi.h's answer, which start_response.c makes",
}


def sources() -> list[Path]:
    found = [path for suffix in ("py", "pyi", "c", "h") for path in PACKAGE.rglob(f"*.{suffix}")]
    assert len(found) > 100
    return sorted(found)


def externals(path: Path) -> list[str]:
    return EXTERNAL.findall(COMMENT.sub("", path.read_text()))


def test_a_long_file_says_why_at_its_top() -> None:
    silent = []
    for path in sources():
        lines = path.read_text().splitlines()
        if len(lines) > LONG and REASON not in "\n".join(lines[:TOP]):
            silent.append(f"{path.relative_to(PACKAGE)}: {len(lines)} lines")
    assert not silent, f"split these, or say '{REASON} ...' at the top: {silent}"


def test_a_file_that_is_not_long_gives_no_reason() -> None:
    for path in sources():
        text = path.read_text()
        if REASON in text:
            assert len(text.splitlines()) > LONG, f"{path.name} is short by now"


def test_a_function_begins_with_the_name_of_its_file() -> None:
    strangers = []
    for path in sorted(CORE.rglob("*.c")):
        file = str(path.relative_to(CORE))
        also = PREFIXES.get(file, ("", ""))[0]
        strangers += [
            f"{file}: {name}"
            for name in externals(path)
            if not name.startswith(f"{path.stem}_")
            and not (also and name.startswith(also))
            and name not in FUNCTIONS
        ]
    assert not strangers


def test_every_exception_is_needed() -> None:
    for file, (prefix, why) in PREFIXES.items():
        names = externals(CORE / file)
        stem = Path(file).stem
        assert why
        assert any(n.startswith(prefix) and not n.startswith(f"{stem}_") for n in names), file
    defined = {name for path in CORE.rglob("*.c") for name in externals(path)}
    assert set(FUNCTIONS) <= defined
