"""What is answered to requests for files: the folder, and the cases in file_cases.txt.

tests/test_files.py sends each to a server, HTTP.md shows them. A block of lines of a key, a
space and a value is a section of HTTP.md, or a case:

    section, title, words   its name, its heading, and what holds for all of its cases
    case    its name
    input   what is asked, in words
    rule    the section that speaks of it
    why     the reason for the decision, where the rule leaves or asks one
    send    method and path, which stands behind that of the mount
    with    a field of the request
    answer  the status
    has     a field of the answer; lacks: the name of one that it does not have
    text    the body; body: from which byte of a.txt to which

In fields {tag} and {date} are those of a.txt; {before} and {after} are a second away.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

TABLE = Path(__file__).with_suffix(".txt")

TEXT = bytes(range(32, 122)) * 11 + b"0123456789"  # 1,000 bytes
MODIFIED = 1_700_000_000
NAMED = {
    "tag": f'"{MODIFIED * 10**9:x}-{len(TEXT):x}"',
    "before": "Tue, 14 Nov 2023 22:13:19 GMT",
    "date": "Tue, 14 Nov 2023 22:13:20 GMT",
    "after": "Tue, 14 Nov 2023 22:13:21 GMT",
}


def make_folder(folder: Path) -> None:
    """The files that the cases ask for."""
    for name, data in {
        "a.txt": TEXT,
        "empty.txt": b"",
        "with space.txt": b"space",
        "caf\xe9.txt": b"coffee",
        "page.html": b"<p>page",
        "noname": b"?",
        "app.3f2a91bc.css": b"a {}",
        "packed.css": b"a { color: red }",
        "packed.css.gz": b"gzip",
        "packed.css.br": b"brotli",
        "stale.css": b"new",
        "stale.css.gz": b"old",
        ".hidden": b"hidden",
        ".well-known/security.txt": b"well known",
        "with/index.html": b"index",
        "without/a.txt": b"a",
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(data)
        os.utime(path, (MODIFIED, MODIFIED))
    os.utime(folder / "stale.css.gz", (MODIFIED - 1, MODIFIED - 1))
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "inside").symlink_to("a.txt")
    (folder / "outside").symlink_to("../secret")
    (folder / "absolute").symlink_to(folder.parent / "secret")
    os.mkfifo(folder / "fifo")


@dataclass
class Case:
    """One block."""

    name: str
    input: str = ""
    rule: str = ""
    why: str = ""
    method: str = "GET"
    path: str = ""
    fields: list[str] = field(default_factory=list)
    status: int = 0
    has: dict[str, str] = field(default_factory=dict)
    lacks: list[str] = field(default_factory=list)
    body: bytes | None = None  # None: none, or any


@dataclass
class Section:
    """The cases of one heading."""

    name: str
    title: str = ""
    words: str = ""
    cases: list[Case] = field(default_factory=list)


def sections() -> list[Section]:
    """All of them, in order. Raises ValueError for what is none."""
    found: list[Section] = []
    for block in TABLE.read_text("ascii").split("\n\n"):
        lines = [line.partition(" ")[::2] for line in block.splitlines()]
        (kind, name), *rest = lines
        if kind == "section":
            found.append(Section(name, **dict(rest)))
        else:
            found[-1].cases.append(_case(name, rest))
    return found


def _case(name: str, lines: list[tuple[str, str]]) -> Case:
    case = Case(name)
    for key, value in lines:
        match key:
            case "input" | "rule" | "why":
                setattr(case, key, value)
            case "send":
                case.method, _, case.path = value.partition(" ")
            case "with":
                case.fields.append(_filled(value))
            case "answer":
                case.status = int(value)
            case "has":
                what, _, text = value.partition(": ")
                case.has[what] = _filled(text)
            case "lacks":
                case.lacks.append(value)
            case "text":
                case.body = value.encode()
            case "body":
                first, _, last = value.partition(" ")
                case.body = TEXT[int(first) : int(last)]
            case _:
                raise ValueError(f"{name}: unknown key: {key}")
    return case


def _filled(text: str) -> str:
    for name, value in NAMED.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def cases() -> list[Case]:
    """Of all sections."""
    return [case for section in sections() for case in section.cases]
