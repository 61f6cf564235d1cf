r"""The raw-byte cases in tests/http, one file each: what is sent and what must come of it.

A file is lines of a key, a space and a value:

    input   what is sent, in words: the first column of HTTP.md
    rule    the section that speaks of it
    why     the reason for the decision, where the rule leaves or asks one
    answer  the status and the Http1Result; 200: the application is called,
            0: nobody is, since the request is not complete
    limit   `line`, `field-size`, `fields` or `head` and a number, if not the default
    send    bytes, with \r \n \t \\ and \xHH; `send*N` sends them N times
    expect  a line that tests/c/message.h says of the parsed message

The C tests feed each to the parsers, split at every place. `python -m
tests.http_cases` prints HTTP.md.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.file_cases import sections

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "http"
DOCUMENT = ROOT / "HTTP.md"

ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|[rnt\\])")
ESCAPED = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}

# The sections of HTTP.md: the first word of a case's name, the title, and
# what holds for all of its cases.
SECTIONS = {
    "head": ("Whole heads", "What usual clients send."),
    "line": (
        "Line ends",
        "A line ends with CR LF and with nothing else (RFC 9112 section 2.2 allows to take a bare"
        " LF; two readers of one stream must not differ in it).",
    ),
    "method": ("Method", "Any token is a method; which ones exist, the application says."),
    "target": (
        "Request target",
        "Printable ASCII without `#`. The path's percent escapes must be well-formed; the query is"
        " passed on as it is.",
    ),
    "version": ("Version", "HTTP/1.0 and HTTP/1.1."),
    "name": (
        "Field names",
        "Tokens. A field whose name holds an underscore is dropped, because `X_Y` and `X-Y` are"
        " one name in a WSGI environ.",
    ),
    "value": ("Field values", "Any bytes but controls; white space around a value is no part."),
    "host": (
        "Host",
        "Required in HTTP/1.1, never repeated, and a host with an optional port by the grammar of"
        " RFC 3986.",
    ),
    "connection": ("Connection", "A connection persists unless one side says no."),
    "length": ("Content-Length", "Decimal digits, up to 2^63-1."),
    "coding": ("Transfer-Encoding", "Exactly `chunked`, in any case of letters, once, in 1.1."),
    "expect": ("Expect", "Only `100-continue` is known."),
    "chunk": ("Chunks", "At most 16 hexadecimal digits, at most 2^63-1 bytes."),
    "extension": ("Chunk extensions", "At most 256 bytes a chunk; ignored."),
    "trailer": ("Trailers", "At most 8192 bytes a body; judged as fields are, and dropped."),
    "limit": (
        "Limits",
        "`--limit-request-line` (8190), `--limit-request-field-size` (8190) and"
        " `--limit-request-fields` (100). The head as a whole is bounded too.",
    ),
}

INTRODUCTION = """\
# What poolsrv takes for HTTP

Strict by default: what two readers of one stream could take for two different messages is refused.
A refused request is answered with the status below, the connection is closed, and nothing that was
sent behind it runs. A byte is judged when it is read, a field when its line is complete, the fields
together at the blank line, so that the answer is the same however the bytes arrive.

*Accepted*: the application is called. *Waits*: the request is not complete; the application is
never called for it, and the time limits end the wait.

Each line is a test: the bytes are in `tests/http/`, in the file of the same name. This page is
generated from them: `python -m tests.http_cases > HTTP.md`.
"""


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str
    input: str
    rule: str
    why: str
    status: int
    result: str
    limits: dict[str, int]
    sent: bytes
    expect: dict[str, str]
    """What is expected, by key. Of `field`, which may stand more than once, the last."""

    @property
    def section(self) -> str:
        return self.name.partition("-")[0]

    @property
    def decision(self) -> str:
        match self.status:
            case 200:
                return "accepted"
            case 0:
                return "waits"
            case _:
                words = self.result.removeprefix("HTTP1_").replace("_", " ").lower()
                return f"{self.status} {words}"


def unescaped(text: str) -> bytes:
    def byte(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if code.startswith("x") else ESCAPED[code]

    return ESCAPE.sub(byte, text).encode("latin-1")


def read(path: Path) -> Case:
    """Raises ValueError or KeyError if the file is no case."""
    facts = {"why": ""}
    limits: dict[str, int] = {}
    expect: dict[str, str] = {}
    sent = b""
    for line in path.read_text("ascii").splitlines():
        key, _, value = line.partition(" ")
        key, _, times = key.partition("*")
        match key:
            case "send":
                sent += unescaped(value) * int(times or 1)
            case "expect":
                what, _, text = value.partition(" ")
                expect[what] = text
            case "limit":
                which, number = value.split()
                limits[which] = int(number)
            case "input" | "rule" | "why" | "answer":
                facts[key] = value
            case _:
                raise ValueError(f"{path}: unknown key: {key}")
    status, result = facts["answer"].split()
    return Case(
        path.stem,
        facts["input"],
        facts["rule"],
        facts["why"],
        int(status),
        result,
        limits,
        sent,
        expect,
    )


def cases() -> list[Case]:
    """All of them, by name."""
    return [read(path) for path in sorted(FOLDER.glob("*.http"))]


def cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def document() -> str:
    """The text of HTTP.md."""
    by_section: dict[str, list[Case]] = {name: [] for name in SECTIONS}
    for case in cases():
        by_section[case.section].append(case)
    parts = [INTRODUCTION]
    for name, (title, words) in SECTIONS.items():
        parts.append(f"\n## {title}\n\n{words}\n\n")
        parts.append("| Input | Decision | Rule | Reason | Case |\n|---|---|---|---|---|\n")
        for case in by_section[name]:
            cells = [cell(case.input), case.decision, case.rule, cell(case.why), f"`{case.name}`"]
            parts.append(f"| {' | '.join(cells)} |\n")
    return "".join([*parts, *files()])


FILES = """
# What poolsrv answers to requests for files

Of mounts with a folder (`docs/files.md`). Each line is a test: the requests and the answers are in
`tests/file_cases.txt`.
"""


def files() -> Iterator[str]:
    """The part on files."""
    yield FILES
    for section in sections():
        yield f"\n## {section.title}\n\n"
        if section.words:
            yield f"{section.words}\n\n"
        yield "| Input | Answer | Rule | Reason | Case |\n|---|---|---|---|---|\n"
        for case in section.cases:
            cells = [cell(case.input), str(case.status), case.rule, cell(case.why)]
            yield f"| {' | '.join([*cells, f'`{case.name}`'])} |\n"


if __name__ == "__main__":
    print(document(), end="")
