"""The manual page, written from the rows of options and the table of commands.

`python -m poolsrv.commands.manual > docs/poolsrv.1` writes it.
"""

from itertools import groupby

from poolsrv.commands.cli import COMMANDS
from poolsrv.settings.rows import DEFAULT_FILE, ROWS, default_of, key
from poolsrv.settings.sources import variable


def page() -> str:
    """The text of poolsrv.1, for man(7)."""
    return "\n".join([*_HEAD, *_commands(), *_options(), *_TAIL, ""])


_HEAD = (
    '.TH POOLSRV 1 "" poolsrv',
    ".SH NAME",
    r"poolsrv \- serve WSGI applications with processes x threads",
    ".SH SYNOPSIS",
    r".B poolsrv serve \fIAPP\fR [\fIOPTIONS\fR]",
    ".br",
    r".B poolsrv \fICOMMAND\fR [\fIOPTIONS\fR]",
)

_TAIL = (
    ".SH ENVIRONMENT",
    "Each option may stand in a variable:",
    rf".BR {variable('keep_alive_timeout')}=90s .",
    "Variables that platforms set are the weakest source:",
    ".B PORT",
    "and",
    ".BR WEB_CONCURRENCY .",
    ".SH FILES",
    ".TP",
    f".B {DEFAULT_FILE}",
    r"in the working directory holds options as \fIname = value\fR.",
    ".SH EXIT STATUS",
    ".TP",
    ".B 0",
    "The server was told to stop, and has stopped.",
    ".TP",
    ".B 2",
    "An option is unknown, or its value is not allowed.",
    ".TP",
    ".B 3",
    "The application cannot be loaded.",
    ".TP",
    ".B 4",
    "An address cannot be bound.",
)


def _commands() -> list[str]:
    lines = [".SH COMMANDS"]
    for name, command in COMMANDS.items():
        words = " ".join(filter(None, [name, command.operand]))
        paragraphs = command.help.split("\n\n")
        lines += [".TP", f".B {_plain(words)}", *_text(paragraphs[0])]
        for paragraph in paragraphs[1:]:
            lines += [".IP", *_text(paragraph)]
        for switch, help in command.switches.items():
            lines += [".IP", rf"\fB{_plain(switch)}\fR: {_plain(help)}"]
    return lines


def _options() -> list[str]:
    lines = [".SH OPTIONS"]
    for group, names in groupby(ROWS, lambda name: ROWS[name].group):
        lines.append(f".SS {group}")
        for name in names:
            lines += [".TP", _label(name), *_text(ROWS[name].help)]
            if default := default_of(name):
                lines.append(f"Default: {_plain(default)}.")
    return lines


def _label(name: str) -> str:
    kind = ROWS[name].kind
    flag = rf"\fB{_plain('--' + key(name))}\fR"
    if name == "application":
        return rf"\fI{kind.metavar}\fR"
    if kind.is_flag:
        return rf"{flag}, \fB{_plain('--no-' + key(name))}\fR"
    return rf"{flag} \fI{_plain(kind.metavar)}\fR"


def _text(paragraph: str) -> list[str]:
    return [_plain(line) for line in paragraph.split("\n")]


def _plain(text: str) -> str:
    """A text that roff takes as it is: a line may not begin as a request does."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    print(page(), end="")
