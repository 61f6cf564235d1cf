"""The options of poolsrv, each in one row.

A row of Settings is all there is to an option: from it come the flag, the
environment variable, the key in the file, validation, help, `poolsrv config`
and SETTINGS.md. How values are read is in kinds.py. Every process holds the
same Settings; inside, no value can be wrong.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter
from cyclopts.exceptions import CycloptsError

from poolsrv.errors import ConfigError
from poolsrv.settings.kinds import (
    DEFAULT_FILE,
    Address,
    FdAddress,
    Mode,
    Owner,
    Peers,
    Sources,
    TcpAddress,
    UnixAddress,
    address,
    addresses,
    choice,
    default_of,
    flag,
    group_of,
    integer,
    key,
    kind_of,
    mode,
    owner,
    peers,
    row,
    rows_of,
    seconds,
    size,
    text,
    variable,
)

__all__ = [
    "DEFAULTS",
    "Address",
    "FdAddress",
    "Given",
    "Mode",
    "Owner",
    "Peers",
    "Settings",
    "TcpAddress",
    "UnixAddress",
    "from_options",
    "reference",
    "report",
]


def available_cpus(root: Path = Path("/")) -> int:
    """How many CPUs this process may use, by affinity and by the quotas of its cgroups.

    A part of a CPU counts as one, so that no share lies idle. `root` is the
    folder that holds proc and sys.
    """
    quotas = [math.ceil(_quota(folder)) for folder in _cgroups(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _cgroups(root: Path) -> Iterator[Path]:
    # Any ancestor may set the tightest quota. In a container the path may lie
    # outside of what is mounted there: then only the mount itself is found.
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            group = Path(path.lstrip("/"))
            yield from (mount / folder for folder in (group, *group.parents))


def _quota(cgroup: Path) -> float:
    """CPUs that a cgroup may use: cpu.max (version 2) or cpu.cfs_* (version 1)."""
    words = _read(cgroup / "cpu.max").split() or [
        *_read(cgroup / "cpu.cfs_quota_us").split(),
        *_read(cgroup / "cpu.cfs_period_us").split(),
    ]
    match words:
        case [quota, period] if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return 512.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # this kernel or container has no such file
        return ""


APPLICATION = Group.create_ordered("Application")
LISTENING = Group.create_ordered("Listening")
PROCESSES = Group.create_ordered("Processes and threads")
TIMES = Group.create_ordered("Time limits")
MESSAGES = Group.create_ordered("Requests and responses")
PROXIES = Group.create_ordered("Behind a proxy")
OBSERVATION = Group.create_ordered("Observation")

# Long enough for anyone, and nanoseconds of it fit 64 bits with room for sums.
_YEAR = 365 * 86400.0

# The shortest limit that still lets a local client through.
_MOMENT = 0.001

_MAX_PROCESSES = 512
_MAX_COUNT = 2**31 - 1


_PUBLIC = TcpAddress("127.0.0.1", 8000)
_ADMIN = TcpAddress("127.0.0.1", 9464)

# A proxy gets in by its group; no other user of the machine does.
_UNIX_MODE = Mode(0o660)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options. Sizes are bytes, times are seconds."""

    application: Annotated[
        str,
        row(
            text("module:callable or the path of a file", "APP"),
            APPLICATION,
            "The WSGI application: module:callable, module (its application or app), "
            "module:factory() with literal arguments, or path/to/file.py or .wsgi.",
        ),
    ] = field(default="", kw_only=False)
    chdir: Annotated[
        str | None,
        row(
            text("the path of a folder", "FOLDER"),
            APPLICATION,
            "Change to this folder before the application is loaded.",
        ),
    ] = None
    pythonpath: Annotated[
        tuple[str, ...],
        row(
            text("the path of a folder", "FOLDER", separator=":"),
            APPLICATION,
            "Folder to import from, ahead of the installed packages. Repeatable.",
        ),
    ] = ()
    config: Annotated[
        str | None,
        row(
            text("the path of a file", "FILE"),
            APPLICATION,
            f"Read options from this file instead of {DEFAULT_FILE} in the working directory.",
        ),
    ] = None

    bind: Annotated[
        tuple[Address, ...],
        row(
            addresses(),
            LISTENING,
            "Where to listen: host:port, [v6]:port, unix:/path, or fd://N for an inherited "
            "socket. Repeatable.",
        ),
    ] = (_PUBLIC,)
    backlog: Annotated[
        int,
        row(
            integer(1, _MAX_COUNT),
            LISTENING,
            "Connections the kernel keeps until they are accepted; it caps this at "
            "net.core.somaxconn.",
        ),
    ] = 4096
    unix_mode: Annotated[
        Mode,
        row(
            mode(),
            LISTENING,
            "Permissions of the Unix sockets that are made; who may write to one may connect.",
        ),
    ] = _UNIX_MODE
    unix_owner: Annotated[
        Owner | None,
        row(
            owner(),
            LISTENING,
            "Give the Unix sockets that are made to this user and group, such as those of the "
            "proxy in front.",
        ),
    ] = None

    processes: Annotated[
        int,
        row(
            integer(1, _MAX_PROCESSES),
            PROCESSES,
            "Worker processes.",
            default="the CPUs this process may use",
        ),
    ] = field(default_factory=available_cpus)
    threads: Annotated[
        int,
        row(
            integer(1, 1024),
            PROCESSES,
            "Threads in each worker: requests that it serves at the same time.",
        ),
    ] = 4
    preload: Annotated[
        bool,
        row(
            flag(),
            PROCESSES,
            "Load the application once and fork the workers from it: quicker and smaller, but "
            "what it opens while loading is shared.",
        ),
    ] = False
    queue_size: Annotated[
        int,
        row(
            integer(0, 2**20),
            PROCESSES,
            "Connections that may wait for a free thread; more are answered 503.",
        ),
    ] = 2048
    queue_overtaking: Annotated[
        int,
        row(
            integer(0, 1000),
            PROCESSES,
            "While all threads are busy, a request that waits may be overtaken by shorter ones, "
            "for so many times as long as requests of its path usually take; 0: first come, "
            "first served.",
        ),
    ] = 10

    startup_timeout: Annotated[
        float,
        row(seconds(_MOMENT, _YEAR), TIMES, "How long a worker may take to load the application."),
    ] = 60.0
    graceful_timeout: Annotated[
        float,
        row(seconds(0, _YEAR), TIMES, "How long running requests may go on when a worker stops."),
    ] = 30.0
    queue_timeout: Annotated[
        float,
        row(
            seconds(0, _YEAR),
            TIMES,
            "How long a request may wait for a free thread before it is answered 503.",
        ),
    ] = 30.0
    header_timeout: Annotated[
        float,
        row(
            seconds(_MOMENT, _YEAR),
            TIMES,
            "How long a client may take to send the whole head of a request.",
        ),
    ] = 15.0
    body_timeout: Annotated[
        float,
        row(
            seconds(_MOMENT, _YEAR),
            TIMES,
            "How long a client may pause while it sends a request body.",
        ),
    ] = 30.0
    body_min_rate: Annotated[
        int,
        row(
            size(0, 2**30),
            TIMES,
            "Bytes a second that a request body must come at, once the time of body-timeout is "
            "over; 0 for any.",
        ),
    ] = 240
    send_timeout: Annotated[
        float,
        row(
            seconds(_MOMENT, _YEAR),
            TIMES,
            "How long a client may take nothing of a response that waits for it.",
        ),
    ] = 30.0
    send_min_rate: Annotated[
        int,
        row(
            size(0, 2**30),
            TIMES,
            "Bytes a second that a client must take of a response while a thread waits for it, "
            "which is beyond response-buffer: the connection is closed once it is behind by the "
            "time of send-timeout; 0 for any.",
        ),
        # An honest reader may be as slow as 10 KB a second, and pause.
    ] = 4096
    keep_alive_timeout: Annotated[
        float,
        row(seconds(0, _YEAR), TIMES, "How long an idle connection is kept for its next request."),
    ] = 75.0
    keep_alive_requests: Annotated[
        int,
        row(
            integer(0, _MAX_COUNT),
            TIMES,
            "Requests on one connection before it is closed; 0 for no limit.",
        ),
    ] = 0

    limit_request_line: Annotated[
        int,
        row(size(64, 65535), MESSAGES, "The longest request line; more is answered 414."),
    ] = 8190
    limit_request_fields: Annotated[
        int,
        row(
            integer(1, 32768),
            MESSAGES,
            "The most header fields in a request; more are answered 431.",
        ),
    ] = 100
    limit_request_field_size: Annotated[
        int,
        row(
            size(64, 65535),
            MESSAGES,
            "The longest header field; more is answered 431, as is a head of more than 65535 "
            "bytes in all.",
        ),
    ] = 8190
    limit_request_body: Annotated[
        int,
        row(
            size(0, 2**60),
            MESSAGES,
            "The largest request body; more is answered 413. 0 for no limit.",
        ),
    ] = 2**30
    body_buffer: Annotated[
        int,
        row(
            size(0, 2**30),
            MESSAGES,
            "A request body up to this size stays in memory; a larger one is spooled to a "
            "temporary file.",
        ),
    ] = 2**20
    request_buffering: Annotated[
        bool,
        row(
            flag(),
            MESSAGES,
            "Receive a request body before the application is called; without, the application "
            "reads it as it comes, and a slow client holds a thread.",
        ),
    ] = True
    response_buffer: Annotated[
        int,
        row(
            size(0, 2**30),
            MESSAGES,
            "How much of a response is kept for a slow client before the thread waits for it, "
            "which must then take send-min-rate.",
        ),
    ] = 2**20
    server_header: Annotated[bool, row(flag(), MESSAGES, "Send the Server header field.")] = True
    date_header: Annotated[bool, row(flag(), MESSAGES, "Send the Date header field.")] = True

    trust_proxy: Annotated[
        tuple[Peers, ...],
        row(
            peers(),
            PROXIES,
            "Believe what proxies in this network say about the client; unix stands for all who "
            "connect by Unix sockets. They must set or remove each of the fields themselves. "
            "Repeatable; nobody else is believed.",
        ),
    ] = ()
    forwarded: Annotated[
        str,
        row(
            choice("x-forwarded", "forwarded", "off"),
            PROXIES,
            "The fields that trusted proxies use: X-Forwarded-For, -Proto, -Host, -Port and "
            "-Prefix, or Forwarded (RFC 7239). All others of this purpose are removed.",
        ),
    ] = "x-forwarded"
    proxy_protocol: Annotated[
        str,
        row(
            choice("off", "on"),
            PROXIES,
            "Require that each connection comes from a trusted proxy and begins with the PROXY "
            "protocol, version 1 or 2.",
        ),
    ] = "off"

    admin: Annotated[
        Address | None,
        row(
            address(),
            OBSERVATION,
            "Where metrics, health checks and the status page are served, or off.",
        ),
    ] = _ADMIN
    log_level: Annotated[
        str,
        row(
            choice("debug", "info", "warning", "error"),
            OBSERVATION,
            "The least severe messages to log.",
        ),
    ] = "info"
    log_format: Annotated[
        str,
        row(choice("text", "json"), OBSERVATION, "Log for readers or for programs."),
    ] = "text"
    access_log: Annotated[
        str,
        row(
            text("off, - or the path of a file", "FILE"),
            OBSERVATION,
            "Log each request to this file, to standard output (-), or not (off).",
            hyphen=True,
        ),
    ] = "off"

    def __post_init__(self) -> None:
        if self.proxy_protocol == "on" and not self.trust_proxy:
            raise ConfigError(
                "proxy-protocol: on needs trust-proxy, or each connection would be refused"
            )


DEFAULTS = Settings()

# The parameter of a command that takes every option: `settings: Given = DEFAULTS`.
Given = Annotated[Settings, Parameter(name="*")]


def from_options(**options: object) -> Settings:
    """The settings of a program that serves its own application.

    `options` are fields of Settings, as Python values or as the text of the
    flag; they win over environment and file (`config=None` reads no file).
    Raises ConfigError.
    """
    app = App(default_command=_given, config=[Sources(os.environ, options)])
    try:
        _, given, _ = app.parse_args([], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise ConfigError(str(error)) from None
    return _given(*given.args, **given.kwargs)


def _given(settings: Given = DEFAULTS) -> Settings:
    return settings


def report(settings: Settings, sources: Sources) -> str:
    """Every option with its value and where that came from, as an aligned table."""
    rows = [
        (key(name), kind_of(row).show(getattr(settings, name)) or "-", sources.origin(name))
        for name, row in sources.rows.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows
    )


_REFERENCE_HEAD = f"""\
# Settings

Written by `python -m poolsrv.settings.rows` from the rows in `poolsrv/settings/rows.py`.

Each option can be given in four ways; the first that is there wins:

1. on the command line: `--keep-alive-timeout 90s`
2. as a keyword of `poolsrv.serve(app, keep_alive_timeout="90s")`
3. in the environment: `{variable("keep_alive_timeout")}=90s`
4. in `{DEFAULT_FILE}` (or the file that `--config` names): `{key("keep_alive_timeout")} = "90s"`

A name that is no option is an error in all four. `poolsrv config` prints each value
and where it comes from. Durations are seconds or carry a unit (`ms`, `s`, `m`, `h`, `d`),
sizes are bytes or carry one (`B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`). A
repeatable option is an array in the file; in a variable its values are separated by
spaces (`bind`, `trust-proxy`) or colons (`pythonpath`).
"""


def reference() -> str:
    """The text of SETTINGS.md."""
    rows = rows_of(App(default_command=_given).assemble_argument_collection())
    lines = [_REFERENCE_HEAD]
    for group, names in groupby(rows, lambda name: group_of(rows[name])):
        lines += [f"## {group}", "", "| Option | Default | Meaning |", "| --- | --- | --- |"]
        for name in names:
            help, kind = str(rows[name].parameter.help), kind_of(rows[name])
            allowed = kind.allowed.replace("|", "\\|")
            lines.append(
                f"| `{key(name)}` | {default_of(rows[name]) or 'none'} | {help} Value: {allowed}. |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    Path("SETTINGS.md").write_text(reference())
