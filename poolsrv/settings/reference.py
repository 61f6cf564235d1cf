"""What people read about the options: help, report of values, reference page.

All of it is written from the rows. `python -m poolsrv.settings.reference` writes
SETTINGS.md.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from poolsrv.settings.rows import DEFAULT_FILE, ROWS, NamedGroup, Settings, default_of, key
from poolsrv.settings.sources import Reading, variable

# The first column of the help. Most options fit into it; a longer one has a line
# of its own, so that the second column stays wide enough to read at 80 columns.
_LABELS = 29
_WIDTH = 100


def help_of_options(width: int, names: Collection[str] = tuple(ROWS)) -> str:
    """The options of these field names, by group."""
    parts = []
    for group, members in _groups():
        entries = [(_label(name), _meaning(name)) for name in members if name in names]
        if entries:
            parts.append(f"{group}:\n{columns(entries, width)}")
    return "\n\n".join(parts)


def columns(entries: Iterable[tuple[str, str]], width: int) -> str:
    """Labels and their meanings, in lines of this width or of what is well readable."""
    import textwrap

    lines = []
    for name, meaning in entries:
        label = f"  {name}"
        if len(label) >= _LABELS:
            lines.append(label)
            label = ""
        for part in textwrap.wrap(meaning, min(width, _WIDTH) - _LABELS, break_on_hyphens=False):
            lines.append(f"{label:<{_LABELS}}{part}")
            label = ""
    return "\n".join(lines)


def _groups() -> Iterator[tuple[str, list[str]]]:
    for group, names in groupby(ROWS, lambda name: ROWS[name].group):
        yield group, list(names)


def _label(name: str) -> str:
    if name == "application":
        return ROWS[name].kind.metavar
    if ROWS[name].kind.is_flag:
        return f"--{key(name)}, --no-{key(name)}"
    return f"--{key(name)} {ROWS[name].kind.metavar}"


def _meaning(name: str) -> str:
    default = default_of(name)
    return f"{ROWS[name].help} [{default}]" if default else ROWS[name].help


def report(reading: Reading) -> str:
    """Every option with its value and where that came from, as an aligned table."""
    rows = [
        (key(name), row.kind.show(getattr(reading.settings, name)) or "-", reading.origin(name))
        for name, row in ROWS.items()
    ]
    for group in reading.settings.named:
        rows += _section(group, reading.settings)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows
    )


def _section(group: NamedGroup, server: Settings) -> Iterator[tuple[str, str, str]]:
    """What a section [group.NAME] says differently from the server's settings."""
    origin = f"[group.{group.name}]"
    if group.application:
        yield f"{group.name}.application", group.application, origin
    for name, row in ROWS.items():
        own = getattr(group.settings, name)
        if name not in ("application", "mount") and own != getattr(server, name):
            demand = "0.." if name == "processes" and group.on_demand else ""
            yield f"{group.name}.{key(name)}", f"{demand}{row.kind.show(own)}" or "-", origin


_HEAD = f"""\
# Settings

Written by `python -m poolsrv.settings.reference` from the rows in `poolsrv/settings/rows.py`.

Each option can be given in several ways; the first that is there wins:

1. on the command line: `--keep-alive-timeout 90s`
2. as a keyword of `poolsrv.serve(app, keep_alive_timeout="90s")`
3. in the environment: `{variable("keep_alive_timeout")}=90s`
4. in `{DEFAULT_FILE}` (or the file that `--config` names): `{key("keep_alive_timeout")} = "90s"`
5. in a variable that platforms set: `PORT=8000` is `--bind 0.0.0.0:8000`, `WEB_CONCURRENCY=4` is
   `--processes 4`

`poolsrv config` prints each value and where it comes from; `poolsrv check APP` loads the
application too, and lists everything that is wrong. A name that is no option is an error
in all of the first four, and names of other servers lead to those of poolsrv. A variable
that is empty is not set. What Kubernetes sets for a Service of the name `poolsrv`
(`POOLSRV_PORT=tcp://...`, `POOLSRV_SERVICE_HOST` and the like) is left alone.

A reload (SIGHUP) reads the sources anew. An option that says so keeps its value until the
server is started again.

Durations are seconds or carry a unit (`ms`, `s`, `m`, `h`, `d`), sizes are bytes or carry
one (`B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`). In paths `~` is the home folder.
Permissions are octal: `"0660"`, or `0o660` in the file. A repeatable option is an array in the
file; in a variable its values are separated by spaces (`bind`, `trust-proxy`) or colons
(`pythonpath`), those of `mount` by line ends.

Addresses: `host:port` with a name, `localhost`, or an IPv4 address; `[v6]:port`; `unix:/path` or
a path with a slash; `fd://N`. `8000` is this port on loopback, `:8000` and `*:8000` are this
port on all IPv4 addresses, `127.0.0.1` is the usual port there. `[::]:8000` listens on IPv6 and on
IPv4, unless `--bind` names an IPv4 address with the same port as well. Of a name that has
addresses of both families the IPv4 address is bound. The default of `--admin` gives way to the
next free port, or to none, with a warning; an address that was given is an error if it is taken.
"""


def reference() -> str:
    """The text of SETTINGS.md."""
    lines = [_HEAD]
    for group, names in _groups():
        lines += [f"## {group}", "", "| Option | Default | Meaning |", "| --- | --- | --- |"]
        for name in names:
            row = ROWS[name]
            allowed = row.kind.allowed.replace("|", "\\|")
            # A call after a subscript is no link.
            help_ = row.help.replace("](", "]\\(")
            meaning = f"{help_} Value: {allowed}."
            if not row.reloadable:
                meaning += " Not changed by a reload."
            lines.append(f"| `{key(name)}` | {default_of(name) or 'none'} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    Path("SETTINGS.md").write_text(reference())
