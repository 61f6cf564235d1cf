"""Where values come from: command line, call, environment, file, platform.

The strongest source that has an option gives its value. Every source is read
to its end, so that all faults are known at once, each with its place and the
remedy. Knows no single option but `config`, the file to read.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from poolsrv.errors import ConfigError
from poolsrv.settings import habits
from poolsrv.settings.addresses import BadValue
from poolsrv.settings.groups import groups_of
from poolsrv.settings.rows import (
    DEFAULT_FILE,
    DEFAULTS,
    ROWS,
    NamedGroup,
    Settings,
    is_optional,
    key,
)

_PREFIX = "POOLSRV_"

# Variables of ours that are no options: the build reads it.
_OTHER_VARIABLES = frozenset({"POOLSRV_BUILD"})

# How much of a value a message repeats.
_LONGEST_SHOWN = 60


def variable(name: str) -> str:
    """The environment variable of the option with this field name."""
    return _PREFIX + name.rstrip("_").upper()


class Source(Enum):
    """Where an option may be named, and how it is written there."""

    COMMAND_LINE = 1
    CALL = 2
    ENVIRONMENT = 3
    FILE = 4

    def write(self, name: str) -> str:
        """The option with this field name, as this source names it."""
        match self:
            case Source.COMMAND_LINE:
                return f"--{key(name)}" if name != "application" else "APP"
            case Source.CALL:
                return name
            case Source.ENVIRONMENT:
                return variable(name)
            case Source.FILE:
                return key(name)


@dataclass(frozen=True, slots=True)
class Entry:
    """One mention of an option; `value` is text, or what a call or a file gives."""

    field: str
    origin: str
    value: object


@dataclass(slots=True)
class Reading:
    """What all sources give. With faults, `settings` are what could be understood."""

    settings: Settings
    origins: dict[str, str]
    faults: list[ConfigError]

    def origin(self, name: str) -> str:
        """Where the value of the option with this field name comes from."""
        return self.origins.get(name, "default")


def read(
    environ: Mapping[str, str],
    *,
    line: Iterable[Entry] = (),
    keywords: Mapping[str, object] | None = None,
    faults: Iterable[ConfigError] = (),
    wanted: Collection[str] = tuple(ROWS),
) -> Reading:
    """Options from all sources; `line` and `faults` are those of the command line.

    Only those that are `wanted`: what is wrong with others must keep nobody from
    asking or stopping a server.
    """
    found = list(faults)
    of_unknown = found if set(ROWS) <= set(wanted) else []
    given: dict[str, list[Entry]] = {}

    def take(entries: Iterable[Entry]) -> None:
        fresh: dict[str, list[Entry]] = {}
        for entry in entries:
            fresh.setdefault(entry.field, []).append(entry)
        # A stronger source has its way: what it gives is not added to.
        for name, mentions in fresh.items():
            given.setdefault(name, mentions)

    take(line)
    take(_named(Source.CALL, keywords or {}, found))
    take(_named(Source.ENVIRONMENT, _variables(environ), of_unknown))
    path, file = _read_file(given.get("config", []), found)
    # The same name is the group of the system that processes belong to.
    sections = file.pop("group") if isinstance(file.get("group"), dict) else {}
    # A file cannot name the file to read.
    take(_named(Source.FILE, file, of_unknown, f"{path}: ", hidden=("config",)))
    take(
        Entry(platform.field, platform.variable, platform.text(environ[platform.variable]))
        for platform in habits.PLATFORM
        if environ.get(platform.variable)
    )
    given = {name: mentions for name, mentions in given.items() if name in wanted}
    values = _values(given, found)
    if set(ROWS) <= set(wanted):
        values["named"] = tuple(_groups(path, sections, values, found))
    try:
        settings = Settings(**values)
        groups_of(settings)
    except ConfigError as error:
        settings = DEFAULTS
        # An option that could not be read might have been what this one needs.
        if not found:
            found.append(error)
    origins = {name: mentions[0].origin for name, mentions in given.items()}
    return Reading(settings, origins, found)


def from_options(**options: object) -> Settings:
    """The settings of a program that serves its own application.

    `options` are fields of Settings, as Python values or as the text of the
    flag; they win over environment and file (`config=None` reads no file).
    Raises ConfigError.
    """
    import os

    reading = read(os.environ, keywords=options)
    if reading.faults:
        raise ConfigError("\n".join(map(str, reading.faults)))
    return reading.settings


def unknown(
    source: Source, name: str, others: Collection[str], *, origin: str = "", remedy: str = ""
) -> ConfigError:
    """The fault of a name that no option has. `others` are those that may stand there."""
    import difflib

    if not remedy:
        remedy = habits.remedy(name, source.write, ROWS)
    if not remedy and (nearest := difflib.get_close_matches(name, others, n=1)):
        remedy = f"did you mean {nearest[0]}?"
    return ConfigError(
        f"{origin or name}: there is no such option",
        remedy or "poolsrv serve --help lists all options, SETTINGS.md explains them",
    )


def _named(
    source: Source,
    values: Mapping[str, object],
    faults: list[ConfigError],
    place: str = "",
    hidden: Collection[str] = (),
) -> Iterator[Entry]:
    known = {source.write(name): name for name in ROWS if name not in hidden}
    for name, value in values.items():
        origin = f"{place}{name}"
        if name in known:
            yield Entry(known[name], origin, value)
        else:
            is_section = isinstance(value, dict)
            remedy = "options stand at the top of the file, in no section" if is_section else ""
            faults.append(unknown(source, name, known, origin=origin, remedy=remedy))


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Those that are meant for us. An empty one is as good as none."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_PREFIX)
        and name not in _OTHER_VARIABLES
        and value
        and not habits.is_injected(name.removeprefix(_PREFIX), value)
    }


def _read_file(config: list[Entry], faults: list[ConfigError]) -> tuple[str, dict[str, Any]]:
    """The path and the content of the file that `config` names, or of the usual one if it is
    there."""
    path: object = None
    if config:
        try:
            path = value_of("config", config)
        except ConfigError:
            return "", {}  # it is among the faults of the other options
    elif Path(DEFAULT_FILE).is_file():
        path = DEFAULT_FILE
    if not isinstance(path, str):
        return "", {}
    try:
        # Editors of other systems put a byte order mark in front.
        return path, tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        remedy = "--config names the file to read: check the path and its permissions"
        faults.append(ConfigError(f"{path}: cannot be read: {error.strerror}", remedy))
    except UnicodeDecodeError:
        faults.append(ConfigError(f"{path}: is not UTF-8", "save it in this encoding"))
    except ValueError as error:
        remedy = 'write name = value, with text in quotes: bind = "127.0.0.1:8000"'
        faults.append(ConfigError(f"{path}: not a TOML file: {error}", remedy))
    return path, {}


def _values(given: Mapping[str, list[Entry]], faults: list[ConfigError]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, mentions in given.items():
        try:
            values[name] = value_of(name, mentions)
        except ConfigError as error:
            faults.append(error)
    return values


# Where there are several groups, mounts say which of them an application is in.
_OF_THE_SERVER = {name for name, row in ROWS.items() if row.common}

GROUP_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")

_ON_DEMAND = re.compile(r"0\.\.([0-9]{1,4})")


def _groups(
    path: str,
    sections: Mapping[str, object],
    server: Mapping[str, Any],
    faults: list[ConfigError],
) -> Iterator[NamedGroup]:
    """The sections [group.NAME] of a file; `server` are the values at its top."""
    for name, keys in sections.items():
        place = f"{path}: group.{name}"
        if not isinstance(keys, dict):
            remedy = f'write a section [group.{name}], or group = "NAME" for that of the system'
            faults.append(ConfigError(f"{place}: is no section", remedy))
            continue
        if not GROUP_NAME.fullmatch(name):
            remedy = "up to 32 small letters, digits, - and _, as in [group.api]"
            faults.append(ConfigError(f"{place}: is no name of a group", remedy))
            continue
        wrong: list[ConfigError] = []
        given = dict(keys)
        demand = _ON_DEMAND.fullmatch(str(given.get("processes", "")))
        if demand:
            given["processes"] = int(demand[1])
        if given.get("processes") in (0, "0"):
            remedy = 'a group has its own processes; "0..1" is one, and only while it is asked'
            wrong.append(ConfigError(f"{place}.processes: 0 is not allowed", remedy))
        for option in [option for option in given if option.replace("-", "_") in _OF_THE_SERVER]:
            del given[option]
            remedy = "write it at the top of the file, above all sections"
            if option == "mount":
                remedy = f'write [[mount]] with group = "{name}"'
            wrong.append(ConfigError(f"{place}.{option}: it is the whole server's", remedy))
        found = _values(
            {
                entry.field: [entry]
                for entry in _named(Source.FILE, given, wrong, f"{place}.", _OF_THE_SERVER)
            },
            wrong,
        )
        if not wrong:
            application = found.pop("application", "")
            inherited = {key: value for key, value in server.items() if key not in _OWN}
            try:
                settings = Settings(**{**inherited, **found})
            except ConfigError as error:
                wrong.append(ConfigError(f"{place}: {error.args[0]}", error.args[1]))
            else:
                yield NamedGroup(name, settings, application, "bind" in found, bool(demand))
        faults += wrong


# What a group does not take over from the top of the file.
_OWN = ("application", "mount", "named")


def value_of(name: str, mentions: list[Entry]) -> object:
    """The value that these mentions of one option give. Raises ConfigError."""
    kind = ROWS[name].kind
    if kind.separator is None:
        if len(mentions) > 1:
            raise ConfigError(f"{mentions[0].origin}: is given twice", "leave one of them out")
        (mention,) = mentions
        if mention.value is None and is_optional(name):
            return None
        return _item(name, mention.origin, mention.value)
    values: list[object] = []
    for mention in mentions:
        items = mention.value if isinstance(mention.value, list | tuple) else [mention.value]
        if isinstance(mention.value, dict) and kind.entries is not None:
            try:
                items = kind.entries(mention.value)
            except BadValue as error:
                raise _refusal(name, mention.origin, mention.value, str(error)) from None
        if not items and getattr(DEFAULTS, name) != ():
            raise _refusal(name, mention.origin, mention.value)
        for item in items:
            for part in item.split(kind.separator) if isinstance(item, str) else [item]:
                value = _item(name, mention.origin, part)
                if value in values:
                    raise ConfigError(
                        f"{mention.origin}: {part!r} is given twice", "leave one of them out"
                    )
                values.append(value)
    return tuple(values)


def _item(name: str, origin: str, value: object) -> object:
    kind = ROWS[name].kind
    is_table = isinstance(value, dict) and kind.table is not None
    if value is None or (isinstance(value, list | tuple | dict) and not is_table):
        raise _refusal(name, origin, value)
    try:
        if isinstance(value, dict) and kind.table is not None:
            return kind.table(value)
        return kind.parse(kind.text(value))
    except BadValue as error:
        raise _refusal(name, origin, value, str(error)) from None
    except ValueError:
        raise _refusal(name, origin, value) from None


def _refusal(name: str, origin: str, value: object, remedy: str = "") -> ConfigError:
    kind = ROWS[name].kind
    examples = f", such as {kind.examples}" if kind.examples else ""
    shown = repr(value)
    if len(shown) > _LONGEST_SHOWN:
        shown = f"{shown[:_LONGEST_SHOWN]}..."
    return ConfigError(
        f"{origin}: {shown} is not allowed", remedy or f"give {kind.allowed}{examples}"
    )
