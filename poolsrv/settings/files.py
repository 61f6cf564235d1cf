"""What a mount of files is told: which folder or file, and what goes with its answers.

Knows no single option and no source of values. The keys are those of a table
[[mount]]; csrc/worker/folders.h says what comes of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from poolsrv.settings.addresses import BadValue
from poolsrv.settings.kinds import Kind, choice, flag, path, seconds

_YEAR = 365 * 86400.0

# A deploy is seen after this time at the latest, and a page with twenty files asks once.
_MAX_AGE = 60.0

_INDEX = "index.html"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPE = re.compile(r"[^\0-\x20\x7f-\uffff/]+/[^\0-\x1f\x7f-\uffff/]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_SUFFIX = re.compile(r"[0-9a-z+_-]{1,15}")

# These are the server's to write.
_OURS = (
    *("accept-ranges", "content-encoding", "content-length", "content-range", "etag"),
    *("last-modified", "date", "allow", "location", "retry-after", "x-content-type-options"),
    *("connection", "keep-alive", "transfer-encoding", "upgrade"),
)


@dataclass(frozen=True, slots=True)
class Files:
    """A folder, or one file; relative paths are below the working directory of workers."""

    path: str
    is_file: bool = False
    index: str = _INDEX
    links: str = "inside"
    max_age: float = _MAX_AGE
    immutable: bool = True
    precompressed: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    types: tuple[tuple[str, str], ...] = ()
    is_private: bool = False  # shared caches must not give it to others

    @property
    def cache_control(self) -> str:
        """The value of the field; "" if `headers` has one. Not `public`, by which caches would
        also keep what needs credentials."""
        return self._cached(f"max-age={int(self.max_age)}" if self.max_age else "no-cache")

    @property
    def forever(self) -> str:
        """The same for names that hold a hash (RFC 8246); "" if there is no difference."""
        return self._cached(f"max-age={int(_YEAR)}, immutable") if self.immutable else ""

    def _cached(self, how: str) -> str:
        if any(name.lower() == "cache-control" for name, _ in self.headers):
            return ""
        return f"private, {how}" if self.is_private else how


def take(given: dict[str, Any]) -> Files | None:
    """Take the keys of files out of a table; None if it names none. Raises BadValue."""
    if "folder" not in given and "file" not in given:
        return None
    if "folder" in given and "file" in given:
        raise BadValue("it has a folder or a file: leave one of them out")
    is_file = "file" in given
    which = "file" if is_file else "folder"
    if not isinstance(given[which], str):
        raise BadValue(f"{which} is a path, not {given[which]!r}")
    place = _read(which, path("a path", "PATH"), given)
    read = partial(_take, given)
    return Files(
        place,
        is_file=is_file,
        index=_index(given.pop("index", "" if is_file else _INDEX)),
        links=read("links", choice("inside", "none", "anywhere"), "inside"),
        max_age=read("max-age", seconds(0.0, _YEAR), _MAX_AGE),
        immutable=read("immutable", flag(), True),
        precompressed=read("precompressed", flag(), True),
        headers=tuple(_header(*pair) for pair in _table("headers", given).items()),
        types=tuple(_type(*pair) for pair in _table("types", given).items()),
    )


KEYS = (
    "folder, file, index, links, max-age, immutable, precompressed, headers, types (of mounts of "
    "files)"
)


def _take(given: dict[str, Any], key: str, kind: Kind, default: Any) -> Any:
    return _read(key, kind, given) if key in given else default


def _read(key: str, kind: Kind, given: dict[str, Any]) -> Any:
    value = given.pop(key)
    try:
        return kind.parse(kind.text(value))
    except BadValue:
        raise
    except ValueError:
        raise BadValue(f"{key} is {kind.allowed}, not {value!r}") from None


def _index(value: Any) -> str:
    if value is False or value == "":
        return ""
    if not isinstance(value, str) or "/" in value or "\0" in value or len(value) > 200:
        raise BadValue('index is the name of a file, as "index.html", or false for none')
    return value


def _table(key: str, given: dict[str, Any]) -> Mapping[str, Any]:
    value = given.pop(key, {})
    if not isinstance(value, dict):
        raise BadValue(f"{key} is a table: {key} = {{ NAME = VALUE }}")
    return value


def _header(name: str, value: Any) -> tuple[str, str]:
    if not _TOKEN.fullmatch(name) or not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise BadValue(f"headers: {name!r} = {value!r} is no field of HTTP")
    if name.lower() == "content-type":
        raise BadValue(f'headers: {name} is said by types = {{ ".html" = "text/html" }}')
    if name.lower() in _OURS:
        raise BadValue(f"headers: the server writes {name} itself")
    return name, value


def _type(suffix: str, value: Any) -> tuple[str, str]:
    name = suffix.removeprefix(".").lower()
    if not _SUFFIX.fullmatch(name):
        raise BadValue(f"types: {suffix!r} is no suffix, as .css")
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        raise BadValue(f"types: {value!r} is no media type, as text/css")
    return name, value
