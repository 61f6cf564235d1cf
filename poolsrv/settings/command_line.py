"""The command line in its parts: options with their texts, switches and operands.

Options are those of rows.Settings, all of them long: `--name value`,
`--name=value`, and `--name` or `--no-name` for a flag. What a text means is the
work of sources.py.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from poolsrv.errors import ConfigError
from poolsrv.settings.rows import DEFAULTS, ROWS, key
from poolsrv.settings.sources import Entry, Source, unknown

_FLAGS = {f"--{key(name)}": name for name, row in ROWS.items() if row.kind.is_flag}
_NEGATED = {f"--no-{key(name)}": name for name in _FLAGS.values()}
_VALUED = {
    f"--{key(name)}": name
    for name, row in ROWS.items()
    if not row.kind.is_flag and name != "application"
}
OPTIONS = (*_VALUED, *_FLAGS, *_NEGATED)


@dataclass(slots=True)
class CommandLine:
    """`undecided`: words behind an unknown option, which may be its value or an operand."""

    entries: list[Entry] = field(default_factory=list)
    operands: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    wants_help: bool = False
    faults: list[ConfigError] = field(default_factory=list)


def split(words: Sequence[str], switches: Collection[str] = ()) -> CommandLine:
    """Take the words behind a command apart. `switches` are the command's own, as `--name`."""
    line = CommandLine()
    rest = deque(words)
    may_be_value = False
    while rest:
        word = rest.popleft()
        name, equals, text = word.partition("=")
        follows_unknown, may_be_value = may_be_value, False
        if word == "--":
            line.operands += rest
            rest.clear()
        elif word in ("-h", "--help"):
            line.wants_help = True
        elif word in switches:
            line.switches.add(word)
        elif name in _FLAGS or name in _NEGATED:
            _flag(line, name, text if equals else None)
        elif name in _VALUED:
            # The next option is no value; a number with its sign, or -, may be one.
            if not equals and rest and not rest[0].startswith("--"):
                equals, text = "=", rest.popleft()
            _valued(line, name, text if equals else None)
        elif word.startswith("-") and word != "-":
            # A short option may be written in one with its value: -w4.
            name = name if word.startswith("--") else word[:2]
            line.faults.append(unknown(Source.COMMAND_LINE, name, (*OPTIONS, *switches)))
            may_be_value = word == name
        elif follows_unknown:
            line.undecided.append(word)
        else:
            line.operands.append(word)
    return line


def _flag(line: CommandLine, name: str, text: str | None) -> None:
    if name in _FLAGS:
        line.entries.append(Entry(_FLAGS[name], name, text if text is not None else "true"))
    elif text is None:
        line.entries.append(Entry(_NEGATED[name], name, "false"))
    else:
        line.faults.append(ConfigError(f"{name}: takes no value", f"write {name} alone"))


def _valued(line: CommandLine, name: str, text: str | None) -> None:
    field = _VALUED[name]
    if text is not None:
        line.entries.append(Entry(field, name, text))
        return
    kind = ROWS[field].kind
    usual = kind.show(getattr(DEFAULTS, field))
    example = kind.examples.partition(",")[0] or (usual if usual != "off" else "")
    line.faults.append(
        ConfigError(f"{name}: its value is missing", f"write {name} {example or kind.metavar}")
    )
