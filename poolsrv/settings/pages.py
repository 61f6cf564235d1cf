"""Pages of the server's own answers: which file for which status.

Knows no single option and no source of values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from poolsrv import _core
from poolsrv.settings.addresses import BadValue
from poolsrv.settings.kinds import Kind

# By the end of a file's name.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".xml": "application/xml",
}


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """`path` is that of a file whose name says its type."""

    status: int
    path: str

    @property
    def type(self) -> str:
        """For Content-Type."""
        return TYPES[PurePath(self.path).suffix]

    def __str__(self) -> str:
        return f"{self.status}={self.path}"


def pages() -> Kind:
    """Texts `STATUS=FILE`, or a table of them."""
    return Kind(
        _parse,
        "STATUS=FILE",
        "STATUS=FILE",
        lambda given: ", ".join(map(str, given)),
        separator="\n",
        examples="503=busy.html",
        entries=_entries,
    )


def _entries(table: Mapping[str, Any]) -> list[object]:
    return [f"{status}={path}" for status, path in table.items()]


def _parse(text: str) -> ErrorPage:
    status, equals, path = text.partition("=")
    if not equals or not path or "\0" in path:
        raise ValueError
    if status not in map(str, _core.STATUSES):
        answers = ", ".join(map(str, _core.STATUSES))
        raise BadValue(f"the server answers by itself with {answers}; others are the application's")
    if PurePath(path).suffix not in TYPES:
        raise BadValue(f"the file's name says its type: it ends with {', '.join(TYPES)}")
    return ErrorPage(int(status), path)
