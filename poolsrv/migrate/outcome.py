"""What becomes of a configuration: settings, what is left behind, and remarks.

Each setting is read as the file's would be, so what is printed is valid.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from poolsrv.errors import ConfigError
from poolsrv.settings import habits
from poolsrv.settings.rows import ROWS, Settings, key
from poolsrv.settings.sources import Entry, value_of


class Refused(ValueError):
    """A value that has no counterpart; the text says why, and what to do."""


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Take:
    """An option of theirs that is `field` here; `convert` raises Refused."""

    field: str
    convert: Callable[[Any], Any] = _same
    note: str = ""


@dataclass(frozen=True, slots=True)
class Leave:
    """One that is not carried over; `reason` says what to do."""

    reason: str


Rule = Take | Leave

ALWAYS = Leave("this is always so; leave it out")

UNKNOWN = Leave("poolsrv has nothing that is known by this name")


def rule_of(name: str, rules: Mapping[str, Rule]) -> Rule:
    """What becomes of their option: by their table, else by what poolsrv says of the name."""
    if found := rules.get(name):
        return found
    if taken := habits.field_of(name):
        return Take(taken)
    plain = name.replace("_", "-")
    same = plain.replace("-", "_")
    if said := habits.remedy(plain, lambda field: key(field), ()):
        return Leave(said)
    return Take(same) if same in ROWS else UNKNOWN


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the file that was read, and what stands there."""

    line: int
    text: str


@dataclass(slots=True)
class _Setting:
    value: Any
    places: list[Place]
    notes: list[str]


@dataclass(slots=True)
class Outcome:
    """`file` and `server` are what was read. Settings are by field name."""

    file: str
    server: str
    settings: dict[str, _Setting] = field(default_factory=dict)
    left: list[tuple[Place, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)
    # Those of the sections [group.NAME].
    groups: "dict[str, Outcome]" = field(default_factory=dict)

    def group(self, name: str) -> "Outcome":
        """That of a group of processes; what is left of it is said with the rest."""
        return self.groups.setdefault(
            name,
            Outcome(
                self.file,
                self.server,
                left=self.left,
                remarks=self.remarks,
                needless=self.needless,
            ),
        )

    def put(self, rule: Rule, value: Any, place: Place, note: str = "") -> None:
        """What the rule makes of this value: a setting, or a line that is left."""
        if isinstance(rule, Leave):
            self.leave(place, rule.reason)
            return
        try:
            converted = rule.convert(value)
        except Refused as error:
            self.leave(place, str(error))
            return
        if converted is not None:
            self.take(rule.field, converted, place, rule.note, note)

    def take(self, name: str, value: Any, place: Place, *notes: str) -> None:
        """A setting; the last mention counts, those of a list add up."""
        try:
            _written(value).encode()
            value_of(name, [Entry(name, key(name), value)])
        except UnicodeEncodeError:
            self.leave(place, "its text cannot be written as UTF-8")
            return
        except ConfigError as error:
            fault, remedy = error.args
            self.leave(place, f"{fault.partition(': ')[2]}: {remedy}" if remedy else fault)
            return
        said = [note for note in notes if note]
        if ROWS[name].kind.separator is not None:
            items = value if isinstance(value, list) else [value]
            if former := self.settings.get(name):
                former.value += [item for item in items if item not in former.value]
                former.places.append(place)
                former.notes += said
            else:
                self.settings[name] = _Setting(list(items), [place], said)
            return
        self.settings.pop(name, None)
        self.settings[name] = _Setting(value, [place], said)

    def leave(self, place: Place, reason: str) -> None:
        """A line that is not carried over; what is always so here needs no explanation."""
        if reason == ALWAYS.reason:
            self.needless.append(place.text)
        else:
            self.left.append((place, reason))

    def check(self) -> None:
        """Leave out what the others do not allow."""
        for group in self.groups.values():
            group.check()
        while True:
            values: dict[str, Any] = {
                name: value_of(name, [Entry(name, key(name), setting.value)])
                for name, setting in self.settings.items()
            }
            try:
                Settings(**values)
            except ConfigError as error:
                fault, remedy = error.args
                name = fault.partition(":")[0].partition(" ")[0].replace("-", "_")
                if name not in self.settings:
                    raise
                self.leave(self.settings.pop(name).places[0], f"{fault}: {remedy}")
            else:
                return

    def toml(self) -> str:
        """The text of a poolsrv.toml."""
        lines = [f"# Written by poolsrv migrate from {_plain(self.file)}, of {self.server}."]
        lines += self._lines()
        if self.remarks:
            lines += ["", *(f"# {_plain(remark)}" for remark in self.remarks)]
        if self.left:
            lines += ["", "# Not carried over:"]
            for place, reason in sorted(self.left, key=lambda found: found[0].line):
                lines += [f"# {self._where(place)}", f"#   {_plain(reason)}"]
        if self.needless:
            lines += ["", f"# Always so here, and left out: {_plain('; '.join(self.needless))}"]
        for name, group in self.groups.items():
            lines += ["", f"[group.{name}]", *group._lines()]
        return "\n".join(lines) + "\n"

    def _lines(self) -> list[str]:
        lines = []
        for name in (name for name in ROWS if name in self.settings):
            setting = self.settings[name]
            lines += ["", *(f"# {self._where(place)}" for place in setting.places)]
            lines += [f"# {_plain(note)}" for note in setting.notes]
            lines.append(f"{key(name)} = {_written(setting.value)}")
        return lines

    def _where(self, place: Place) -> str:
        text = _plain(place.text)
        return f"{_plain(self.file)}:{place.line}: {text[:100]}{'...' if text[100:] else ''}"


def _plain(text: str) -> str:
    """In one line, which a comment must be, and without what TOML or a terminal minds."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _written(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case [dict(), *_]:
            lines = "".join(f"  {_written(found)},\n" for found in value)
            return f"[\n{lines}]"
        case list():
            return f"[{', '.join(map(_written, value))}]"
        case dict():
            pairs = ", ".join(f"{name} = {_written(found)}" for name, found in value.items())
            return f"{{ {pairs} }}"
        case int() | float():
            return str(value)
        case _:
            # A string of JSON is one of TOML, but for this.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def lines_of(text: str) -> list[str]:
    """As Python, uWSGI and Apache count them: str.splitlines knows more ends of lines."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
