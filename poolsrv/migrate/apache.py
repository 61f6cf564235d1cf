"""Apache with mod_wsgi: the directives that say what is served, and by which processes."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from poolsrv.errors import ConfigError
from poolsrv.migrate.apache_rules import APACHES, PROCESS_OPTIONS, RULES, TLS
from poolsrv.migrate.outcome import (
    UNKNOWN,
    Outcome,
    Place,
    Refused,
    lines_of,
)
from poolsrv.migrate.static import mount_of

_BY_LOWER = {name.lower(): name for name in RULES}

# What this file reads itself.
_READ = (
    "wsgidaemonprocess wsgiscriptalias wsgiprocessgroup wsgiapplicationgroup "
    "wsgicallableobject wsgiscriptreloading listen servername serveralias keepalive"
)
_OWN = frozenset(_READ.split())


@dataclass(frozen=True, slots=True)
class _Directive:
    name: str  # in lower case
    words: tuple[str, ...]
    place: Place
    host: int  # the line of its <VirtualHost>, 0 outside of all


@dataclass(slots=True)
class _Host:
    names: list[str] = field(default_factory=list)
    callable: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class _Script:
    path: str
    file: str
    group: str
    place: Place
    host: int


def read(path: Path, text: str, outcome: Outcome, group: str = "") -> None:
    """Read it into the outcome. Raises ConfigError for a line that Apache would not take."""
    directives = list(_directives(path, text))
    hosts: dict[int, _Host] = {0: _Host()}
    for directive in directives:
        host = hosts.setdefault(directive.host, _Host())
        match directive.name, directive.words:
            case "servername" | "serveralias", names:
                host.names += [name.partition(":")[0].removeprefix("//") for name in names]
            case "wsgicallableobject", (name,):
                host.callable = name
            case "wsgiprocessgroup", (name,):
                host.group = name
    scripts = list(_scripts(directives, hosts, outcome))
    daemons = [found for found in directives if found.name == "wsgidaemonprocess" and found.words]
    groups = [daemon.words[0] for daemon in daemons]
    if group and group not in groups:
        raise ConfigError(
            f"{path}: there is no WSGIDaemonProcess {group}", f"there are: {', '.join(groups)}"
        )
    used = dict.fromkeys(script.group for script in scripts if script.group in groups)
    several = len(used) > 1 and not group
    chosen = group or next(iter([*used, *groups]), "")
    for daemon in daemons:
        if daemon.words[0] == chosen and not several:
            _processes(daemon, outcome)
        elif daemon.words[0] in used and several:
            _processes(daemon, outcome.group(_group_name(daemon.words[0])))
        elif several or daemon.words[0] not in used:
            outcome.leave(daemon.place, "no script is served by it")
        else:
            outcome.leave(daemon.place, _another(path, daemon.words[0]))
    own = [script for script in scripts if script.group == chosen or script.group not in groups]
    for script in scripts:
        if script not in own and not several:
            outcome.leave(script.place, _another(path, script.group))
    if several:
        own = [
            replace(script, group=_group_name(script.group) if script.group in used else "")
            for script in scripts
        ]
    else:
        own = [replace(script, group="") for script in own]
    _files(directives, _mounts(own, hosts, outcome), outcome)
    if own and ("wsgiscriptreloading", ("Off",)) not in [(d.name, d.words) for d in directives]:
        place = Place(own[0].place.line, "mod_wsgi loads a script anew that was touched")
        outcome.take("reload_on_touch", ["auto"], place)
    for directive in directives:
        _rest(directive, outcome)
    if "bind" in outcome.settings:
        outcome.remarks.append(
            'If Apache stays in front: bind = "127.0.0.1:8000", and there ProxyPass / '
            "http://127.0.0.1:8000/ in place of WSGIScriptAlias."
        )


def _directives(path: Path, text: str) -> Iterator[_Directive]:
    open_sections: list[tuple[str, int]] = []
    host = 0
    for number, line in _logical_lines(text):
        if closing := re.fullmatch(r"</\s*(\w+)\s*>", line):
            if not open_sections or open_sections[-1][0] != closing[1].lower():
                raise ConfigError(f"{path}:{number}: {line} ends what is not open", "leave it out")
            name, _ = open_sections.pop()
            host = 0 if name == "virtualhost" else host
            continue
        if opening := re.fullmatch(r"<\s*(\w+)([^>]*)>", line):
            open_sections.append((opening[1].lower(), number))
            host = number if open_sections[-1][0] == "virtualhost" else host
            continue
        if line.startswith("<"):
            raise ConfigError(f"{path}:{number}: a section ends with >", "complete this line")
        try:
            name, *words = shlex.split(line)
        except ValueError:
            raise ConfigError(
                f"{path}:{number}: a quote is not closed", "close it in the same line"
            ) from None
        yield _Directive(name.lower(), tuple(words), Place(number, line), host)
    if open_sections:
        name, number = open_sections[-1]
        raise ConfigError(
            f"{path}:{number}: the section {name} has no end", f"write </{name}> behind it"
        )


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; one that ends with a backslash goes on in the next."""
    begun, parts = 0, ""
    for number, raw in enumerate(lines_of(text), 1):
        begun = begun or number
        if raw.endswith("\\"):
            parts += raw[:-1]
            continue
        line = (parts + raw).strip()
        if line and not line.startswith("#"):
            yield begun, line
        begun, parts = 0, ""
    if parts.strip():
        yield begun, parts.strip()


def _another(path: Path, group: str) -> str:
    return (
        f"this is for another group of processes: poolsrv migrate {path} without a group prints "
        f"them all, poolsrv migrate {path} {group} this one"
    )


def _group_name(name: str) -> str:
    """As a section may be named: small letters, digits, - and _."""
    return re.sub("[^a-z0-9_]+", "-", name.lower())[:32].strip("-_") or "group"


def _processes(daemon: _Directive, outcome: Outcome) -> None:
    given = dict(word.partition("=")[::2] for word in daemon.words[1:])
    for name, value in given.items():
        rule = PROCESS_OPTIONS.get(name.lower(), UNKNOWN)
        place = Place(daemon.place.line, f"WSGIDaemonProcess {name}={value}")
        outcome.put(rule, value, place)
    usual = Place(daemon.place.line, "nothing is said of it, and this is mod_wsgi's default")
    for name, count in (("processes", 1), ("threads", 15)):
        if name not in given:
            outcome.take(name, count, usual)


def _scripts(
    directives: list[_Directive], hosts: Mapping[int, _Host], outcome: Outcome
) -> Iterator[_Script]:
    for found in directives:
        if found.name != "wsgiscriptalias":
            continue
        if len(found.words) < 2:
            outcome.leave(found.place, "it has a path and a file")
            continue
        path, file, *rest = found.words
        options = dict(word.partition("=")[::2] for word in rest)
        host = hosts[found.host]
        group = options.get("process-group", host.group or hosts[0].group)
        name = options.get("callable-object", host.callable or hosts[0].callable)
        spec = f"{file}:{name}" if name and name != "application" else file
        yield _Script(path.rstrip("/") or "/", spec, group, found.place, found.host)


def _files(directives: list[_Directive], at: Mapping[int, list[str]], outcome: Outcome) -> None:
    """Folders and files beside the scripts, at the hosts that have any of them."""
    for found in directives:
        if found.name != "alias" or len(found.words) != 2 or found.host not in at:
            continue
        path, target = found.words
        try:
            mounts = [mount_of(path, target, host) for host in at[found.host] or [""]]
        except Refused as error:
            outcome.leave(found.place, str(error))
            continue
        outcome.take("mount", mounts, found.place)


def _mounts(
    scripts: list[_Script], hosts: Mapping[int, _Host], outcome: Outcome
) -> dict[int, list[str]]:
    """The names under which each host's paths are, none where there is one host."""
    several = len({script.host for script in scripts}) > 1
    at: dict[int, list[str]] = {0: []}
    for script in scripts:
        names = at[script.host] = hosts[script.host].names if several else []
        if script.group:
            for host in names or [""]:
                table = {"host": host} if host else {}
                table |= {"path": script.path, "application": script.file, "group": script.group}
                outcome.take("mount", [table], script.place)
            continue
        if script.path == "/" and not names and "application" not in outcome.settings:
            outcome.take("application", script.file, script.place)
            continue
        for host in names or [""]:
            outcome.take("mount", [f"{host}{script.path}={script.file}"], script.place)
    return at


def _rest(directive: _Directive, outcome: Outcome) -> None:
    value = " ".join(directive.words)
    match directive.name:
        case "listen":
            port = directive.words[0].rpartition(":")[2] if directive.words else ""
            if "https" in directive.words[1:] or port == "443":
                outcome.put(TLS, value, directive.place)
            else:
                address = directive.words[0] if directive.words else ""
                whole = address if ":" in address else f"0.0.0.0:{address}"
                outcome.take("bind", [whole], directive.place)
        case "keepalive" if value.lower() == "off":
            outcome.take("keep_alive_timeout", 0, directive.place)
        case "wsgiapplicationgroup" if value != "%{GLOBAL}":
            outcome.leave(
                directive.place,
                "all applications of a worker are in its main interpreter, as with %{GLOBAL}",
            )
        case "alias":  # read with the scripts
            return
        case name if name in _BY_LOWER:
            outcome.put(RULES[_BY_LOWER[name]], value, directive.place)
        case name if name.startswith("ssl"):
            outcome.put(TLS, value, directive.place)
        case name if name.startswith("wsgi") and name not in _OWN:
            outcome.put(UNKNOWN, value, directive.place)
        case name if name not in _OWN:
            outcome.put(APACHES, value, directive.place)
