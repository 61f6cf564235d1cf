"""Mounts: at which host and path an application is, and for whom.

Knows no single option and no source of values. A mount is written as a text,
`/path=module:callable`, or as a table of the file, which can say more. The core
finds the mount of a request (csrc/common/mounts.h); `find` does the same for the
few requests that a worker makes itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from poolsrv.errors import ConfigError
from poolsrv.settings import files
from poolsrv.settings.addresses import BadValue
from poolsrv.settings.files import Files
from poolsrv.settings.kinds import Kind, Peers, parse_peers

# The group of processes of all that names none.
DEFAULT_GROUP = "default"

# What a mount can answer by itself.
STATUSES = (403, 404, 503)

_FORM = (
    'write /path=module:callable, or host/path=module:callable, as in "/api=shop.api:app"; a path '
    'of a folder ends with a slash, as in "/static=/srv/static/"'
)


@dataclass(frozen=True, slots=True)
class Mount:
    """`path` is decoded and begins with a slash; `host` is lower case, "" for any, `*.x` for all
    hosts below x. What answers is an application, or the server with files or `status`."""

    path: str
    host: str = ""
    application: str = ""
    status: int = 0
    files: Files | None = None  # with an application: that answers what is no file
    allow: tuple[Peers, ...] = ()
    group: str = DEFAULT_GROUP  # of processes; what is files or a status is answered by each
    above: str | None = None  # this is a part of what is mounted at that path
    called: bool = False  # the application is the callable of a program, whatever it is named
    interpreter: int = 0  # the only one that has the application, from 1; 0: each has it

    @property
    def kind(self) -> str:
        """As the core calls it: MOUNT_KINDS of csrc/common/mounts.h."""
        return "status" if self.status else "folder" if self.files else "application"

    @property
    def is_part(self) -> bool:
        """Does it say nothing but whom it is for?"""
        return not (self.application or self.called or self.status or self.files)

    @property
    def script(self) -> bytes:
        """SCRIPT_NAME."""
        return self.prefix if self.above is None else self.above.encode().rstrip(b"/")

    @property
    def inner(self) -> int:
        """How much of the path is PATH_INFO's."""
        return len(self.prefix) - len(self.script)

    @property
    def has_application(self) -> bool:
        return bool(self.application) or self.called

    @property
    def prefix(self) -> bytes:
        """The path as the core takes it: without a slash at its end."""
        return b"" if self.path == "/" else self.path.encode()

    def __str__(self) -> str:
        place = f" (interpreter {self.interpreter})" if self.interpreter and not self.called else ""
        allowed = f" (allow {' '.join(map(str, self.allow))})" if self.allow else ""
        answers = [self.files.path] if self.files else []
        answers += [self.application] if self.application else []
        what = ", then ".join(answers) or self.status or ""
        return f"{self.host}{self.path}={what}{place}{allowed}"


def mounts() -> Kind:
    """Texts `PATH=APP`, `HOST/PATH=APP` or `PATH=FOLDER/`, or tables."""
    return Kind(
        _parse,
        "/path=module:callable or host/path=module:callable",
        "PATH=APP",
        lambda given: ", ".join(map(str, given)),
        separator="\n",
        examples="/api=shop.api:app",
        table=_parse_table,
    )


def _parse(text: str) -> Mount:
    place, equals, application = text.partition("=")
    host, slash, path = place.partition("/")
    if not equals or not slash or not application.strip():
        raise BadValue(_FORM)
    at = parse_path(f"/{path}"), parse_host(host)
    if application.endswith("/"):
        return Mount(*at, files=Files(application))
    return Mount(*at, _application(application))


def _application(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadValue("application is the text of APP, such as shop.api:app or shop.wsgi")
    return value.strip()


def parse_path(path: Any) -> str:
    """Raises BadValue for what no request could have, or what was meant otherwise."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise BadValue(f'a path begins with a slash: path = "/{path}"')
    if path == "/":
        return path
    if path.endswith("/"):
        raise BadValue(f"write {path.rstrip('/') or '/'}: it stands for all that is below it, too")
    if re.search(r"[%?#\0-\x1f\x7f]", path):
        raise BadValue("a path is written as it reads when it is decoded, without %, ? and #")
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise BadValue("clients resolve //, . and .. before they ask: write the path that remains")
    return path


def parse_host(host: Any) -> str:
    """Raises BadValue for what no client would send as a host."""
    if not isinstance(host, str):
        raise BadValue('host is a name, such as "api.example.org" or "*.example.org"')
    name = host.lower().removesuffix(".")
    if not name.isascii():
        try:
            ascii_name = name.encode("idna").decode()
        except UnicodeError:
            raise BadValue(f"{host} is no name of a host") from None
        raise BadValue(f"clients send it as {ascii_name}: write that")
    if re.fullmatch(r"\[[0-9a-f:.]+\]", name) or not name:
        return name
    plain, colon, _ = name.partition(":")
    if colon:
        raise BadValue(f"a mount has a host without a port: {plain or host}")
    if not re.fullmatch(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", name):
        raise BadValue("a host is a name, such as api.example.org, or *.example.org for all below")
    return name


def _parse_table(table: Mapping[str, Any]) -> Mount:
    given = dict(table)
    path = parse_path(given.pop("path", "/"))
    host = parse_host(given.pop("host", ""))
    status = given.pop("status", 0)
    if status not in (0, *STATUSES) or isinstance(status, bool):
        raise BadValue(f"status is one of {', '.join(map(str, STATUSES))}")
    application = _application(given.pop("application")) if "application" in given else ""
    found = files.take(given)
    is_part = not (application or found or status) and "allow" in given
    if bool(application or found) == bool(status) and not is_part:
        raise BadValue(
            f"{host}{path}: give it an application, a folder, a file, a status as its answer, "
            "or networks that it is for: allow"
        )
    group = given.pop("group", DEFAULT_GROUP)
    if not isinstance(group, str):
        raise BadValue('group is the name of a section: group = "api" for [group.api]')
    interpreter = given.pop("interpreter", 0)
    if not isinstance(interpreter, int) or isinstance(interpreter, bool) or interpreter < 0:
        raise BadValue("interpreter is the number of one, from 1")
    if interpreter and not application:
        raise BadValue(f"{host}{path}: interpreter is for an application")
    networks = given.pop("allow", [])
    networks = networks.split() if isinstance(networks, str) else networks
    if not isinstance(networks, list | tuple):
        raise BadValue('allow is a list of networks: ["10.0.0.0/8", "unix"]')
    allow = tuple(_network(text) for text in networks)
    if given:
        raise BadValue(
            f"a mount has no {', '.join(given)}: it has path, host, application, interpreter, "
            f"group, status, allow; {files.KEYS}"
        )
    if found and allow:
        found = replace(found, is_private=True)
    return Mount(path, host, application, status, found, allow, group, interpreter=interpreter)


def _network(text: Any) -> Peers:
    try:
        return parse_peers(str(text))
    except BadValue:
        raise
    except ValueError:
        raise BadValue(
            f'{text!r} is no network: allow = ["10.0.0.0/8", "2001:db8::/32", "unix"]'
        ) from None


def table(application: str, mounts: Sequence[Mount], called: bool = False) -> tuple[Mount, ...]:
    """All mounts, with that of APP (or of a callable, `called`), which is at /.

    A folder at / goes before it: the application answers what is no file there.
    """
    if (not application and not called) or any(mount.called for mount in mounts):
        return tuple(mounts)
    for i, mount in enumerate(mounts):
        if (mount.host, mount.path) == ("", "/") and mount.files and not mount.application:
            both = replace(mount, application=application, called=called, interpreter=int(called))
            return (both, *mounts[:i], *mounts[i + 1 :])
    # The callable is where the program has made it.
    own = Mount("/", application=application, called=called, interpreter=int(called))
    return (own, *mounts)


def with_parts(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Each part becomes what is mounted above it, for those whom the part allows.

    Raises ConfigError if nothing is.
    """
    whole = [mount for mount in mounts if not mount.is_part]

    def resolved(part: Mount) -> Mount:
        host = f"any{part.host[1:]}" if part.host.startswith("*.") else part.host
        above = find(whole, host, part.prefix)
        if above is None or above.status:
            raise ConfigError(
                f"mount: at {part.host}{part.path} nothing answers: it names no application, and "
                "none is mounted above it",
                "give it an application, or mount one above it",
            )
        place = replace(above, host=part.host, path=part.path, allow=part.allow, above=above.path)
        private = replace(above.files, is_private=True) if above.files else None
        return replace(place, files=private)

    return tuple(resolved(mount) if mount.is_part else mount for mount in mounts)


def twice(mounts: Sequence[Mount]) -> Mount | None:
    """One that has the host and the path of another."""
    seen: set[tuple[str, str]] = set()
    for mount in mounts:
        place = mount.host, mount.path
        if place in seen:
            return mount
        seen.add(place)
    return None


def applications(mounts: Sequence[Mount]) -> list[str]:
    """Each once, in order; "" is the callable of a program."""
    return list(dict.fromkeys(mount.application for mount in mounts if mount.has_application))


def own_of(mounts: Sequence[Mount], group: str) -> tuple[Mount, ...]:
    """Those that this group of processes answers itself: files and statuses are everybody's."""
    return tuple(mount for mount in mounts if mount.group == group or not mount.has_application)


def find(mounts: Sequence[Mount], host: str, path: bytes) -> Mount | None:
    """The mount of a request. `host` has no port, `path` is decoded."""

    def rank(mount: Mount) -> tuple[int, int]:
        below = mount.host.startswith("*.")
        return (2**16 if mount.host and not below else len(mount.host)), len(mount.prefix)

    name = host.lower().removesuffix(".")
    found = [
        mount
        for mount in mounts
        if mount.host in ("", name)
        or (
            mount.host.startswith("*.")
            and len(name) >= len(mount.host) > 2
            and name.endswith(mount.host[1:])
        )
    ]
    found = [mount for mount in found if _is_below(path, mount.prefix)]
    return max(found, key=rank, default=None)


def _is_below(path: bytes, prefix: bytes) -> bool:
    return path == prefix or path.startswith(prefix + b"/")
