"""The commands of poolsrv, and the one place that turns an error into an exit status.

A command is a function and a row of COMMANDS. What it needs is imported when it
runs, so that help, version and mistakes answer at once.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from poolsrv._version import __version__
from poolsrv.errors import ConfigError, PoolsrvError
from poolsrv.outlets import open_standard
from poolsrv.settings.command_line import CommandLine, split
from poolsrv.settings.reference import columns, help_of_options, report
from poolsrv.settings.rows import ROWS, Settings, key
from poolsrv.settings.sources import GROUP_NAME, Entry, Reading, read


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `run` gets the line and what all sources give, and returns the exit status.

    The first line of `help` is its summary. `operand` is what the word behind the
    command stands for; `switches` are flags of its own, as `--name`, with their
    meanings; `options` are the settings that its help lists.
    """

    run: Callable[[CommandLine, Reading], int]
    help: str
    operand: str = ""
    switches: Mapping[str, str] = field(default_factory=dict)
    options: Collection[str] = tuple(ROWS)


def _serve(line: CommandLine, reading: Reading) -> int:
    faults = [*reading.faults, *_missing(line, reading, "serve")]
    if faults:
        from poolsrv.between.handover import refuse

        refuse(os.environ, "\n".join(map(str, faults)))
        return _refuse(faults)
    from poolsrv.launcher import launch
    from poolsrv.system.processes import entitle

    def again() -> Settings:
        now = read(os.environ, line=_entries(line))
        if now.faults:
            raise now.faults[0]
        return now.settings

    entitle("pool:supervisor" if reading.settings.processes else "poolsrv")
    return launch(reading.settings, read_again=again)


def _config(_line: CommandLine, reading: Reading) -> int:
    if reading.faults:
        return _refuse(reading.faults)
    print(report(reading))
    return 0


def _check(line: CommandLine, reading: Reading) -> int:
    from poolsrv.commands.check import faults_of, remarks_on

    faults = [*reading.faults, *_missing(line, reading, "check"), *faults_of(reading.settings)]
    if faults:
        return _refuse(faults)
    found = "are WSGI applications" if reading.settings.mount else "is a WSGI application"
    print(f"{reading.settings.title} {found}, and the options are valid")
    for remark in remarks_on(reading.settings):
        print(remark)
    return 0


def _migrate(line: CommandLine, _reading: Reading) -> int:
    if line.faults:
        return _refuse(line.faults)
    if not 1 <= len(line.operands) <= 2:
        return _refuse([ConfigError("migrate takes one file", "poolsrv migrate gunicorn.conf.py")])
    from poolsrv.migrate import migrate

    outcome = migrate(*line.operands)
    print(outcome.toml(), end="")
    print(
        f"poolsrv: {len(outcome.settings)} settings are carried over, {len(outcome.left)} lines "
        "are not: each stands there with the reason",
        file=sys.stderr,
    )
    return 0


def _completion(line: CommandLine, _reading: Reading) -> int:
    from poolsrv.commands.completion import SHELLS

    shell = "".join(line.operands)
    if shell not in SHELLS:
        names = ", ".join(SHELLS)
        return _refuse([ConfigError(f"{shell or 'SHELL'}: no such shell", f"give one of {names}")])
    print(SHELLS[shell](_summaries()), end="")
    return 0


def _operate(name: str) -> Callable[[CommandLine, Reading], int]:
    """What a command does that asks a running server."""

    def run(line: CommandLine, reading: Reading) -> int:
        if reading.faults:
            return _refuse(reading.faults)
        from poolsrv.commands import operate

        return operate.run(name, reading.settings.control, line.operands, line.switches)

    return run


def _asks(name: str, help: str, operand: str = "", **switches: str) -> Command:
    """A command for a running server: the only one, or the one that --control names."""
    flags = {f"--{switch}": meaning for switch, meaning in switches.items()}
    return Command(
        _operate(name),
        f"{help}\n\nExit status: 0, 1 if it failed, 2 for bad words, 5 if no server can be asked.",
        operand=operand,
        switches={"--json": "Print one JSON object, for scripts.", **flags},
        options=("control", "config"),
    )


COMMANDS: Mapping[str, Command] = {
    "serve": Command(
        _serve,
        """Serve an application until a signal ends it.

SIGTERM and SIGINT let running requests finish; a second one ends them.
Exit status: 2 for bad options, 3 if the application cannot be loaded, 4 if
an address cannot be bound, 5 if the kernel refuses what is needed. Each option
may also stand in the environment (POOLSRV_THREADS=8) and in poolsrv.toml
(threads = 8).""",
        operand="APP",
    ),
    "check": Command(
        _check,
        """Say what would keep serve from starting: all of it, at once.

Reads the options and loads the application as serve would do it, but binds no
address and makes no file. Exit status: 0 if nothing is wrong; 2 if an option is,
3 if the application is, 4 if an address is; with several faults that of the first.""",
        operand="APP",
    ),
    "config": Command(
        _config,
        "Show each option as serve would use it, and where its value comes from.",
        operand="[APP]",
    ),
    "status": _asks("status", "Show how a running server does."),
    "workers": _asks("workers", "Show the workers of a running server.", "[GROUP]"),
    "requests": _asks("requests", "Show the requests that run now, the oldest first.", "[GROUP]"),
    "reload": _asks(
        "reload",
        "Load code and settings anew without losing a request; wait for the outcome.",
        "[GROUP]",
    ),
    "upgrade": _asks(
        "upgrade",
        """Replace the supervisor itself, for a new poolsrv or Python; wait for the outcome.

The same command is executed once more. It takes over sockets, connections and counters
when its workers are ready; if they are not, the server goes on as it is. Not where the
server is process 1, and not below what ends a service when its first process ends.""",
    ),
    "recycle": _asks(
        "recycle",
        "Replace a worker, or all, one by one: each when the next is ready.",
        "[GROUP/]SLOT|all",
    ),
    "scale": _asks("scale", "Change the number of workers, up to --max-processes.", "[GROUP=]N"),
    "stacks": _asks(
        "stacks", "Show what each thread does now, of one worker or all.", "[[GROUP/]SLOT]"
    ),
    "settings": _asks("settings", "Show the options with which a running server works.", "[GROUP]"),
    "events": _asks("events", "Show the last events of a running server."),
    "stop": _asks(
        "stop",
        "Have a server finish what runs, and wait for its end.",
        now="End at once, and lose what runs.",
    ),
    "migrate": Command(
        _migrate,
        """Print a poolsrv.toml for the configuration of gunicorn, uWSGI or mod_wsgi.

FILE is a gunicorn.conf.py, a uwsgi.ini, or a configuration of Apache; GROUP one of its
WSGIDaemonProcess. It is read as text: nothing in it is executed. What is not carried
over is listed with the reason. poolsrv migrate gunicorn.conf.py > poolsrv.toml, then
poolsrv check. Exit status: 2 if the file cannot be read.""",
        operand="FILE [GROUP]",
        options=(),
    ),
    "completion": Command(
        _completion,
        """Print what completes the words of poolsrv in a shell: bash, zsh or fish.

bash: source <(poolsrv completion bash), in ~/.bashrc. zsh: poolsrv completion zsh
in a file _poolsrv of a folder in $fpath. fish: poolsrv completion fish | source.""",
        operand="SHELL",
        options=(),
    ),
}


def _summaries() -> dict[str, tuple[str, bool]]:
    """The first line of each command's help, and whether it takes options."""
    return {
        name: (command.help.partition("\n")[0], bool(command.options))
        for name, command in COMMANDS.items()
    }


def main() -> NoReturn:
    """The console script. Exits with 0, the status of a PoolsrvError, or the server's."""
    open_standard()
    try:
        sys.exit(run(sys.argv[1:]))
    except PoolsrvError as error:
        sys.exit(_refuse([error]))


def run(words: Sequence[str]) -> int:
    """Do what the command line says; the exit status. Raises PoolsrvError."""
    if not words or words[0] in ("-h", "--help", "help"):
        command_asked = next((word for word in words[1:] if word in COMMANDS), None)
        print(_help(command_asked, COMMANDS[command_asked]) if command_asked else _overview())
        return 0
    if words[0] in ("--version", "-V", "version"):
        print(f"poolsrv {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise _unknown_command(name, rest)
    command = COMMANDS[name]
    line = split(rest, command.switches)
    if line.wants_help:
        print(_help(name, command))
        return 0
    entries = line.entries
    line.faults += [
        ConfigError(
            f"{entry.origin}: poolsrv {name} does not take it",
            "the server's options are those of poolsrv serve, and of poolsrv.toml, which a reload "
            "reads anew",
        )
        for entry in entries
        if entry.field not in command.options
    ]
    if command.operand.strip("[]") == "APP":
        entries = _entries(line)
        line.faults += [_unexpected(word) for word in line.operands[1:]]
    elif "control" in command.options:
        most = len(command.operand.split())
        if command.operand == "[GROUP]" and not any(map(_may_be_group, line.operands[:1])):
            most = 0
        line.faults += [_no_server(name, word) for word in line.operands[most:]]
    reading = read(os.environ, line=entries, faults=line.faults, wanted=command.options)
    return command.run(line, reading)


def _entries(line: CommandLine) -> list[Entry]:
    """What the line gives, with the application as its operand."""
    return [*line.entries, *(Entry("application", "APP", word) for word in line.operands[:1])]


def _refuse(faults: Sequence[PoolsrvError]) -> int:
    """Say each of them on standard error; the status of the first."""
    for fault in faults:
        print(f"poolsrv: error: {fault}", file=sys.stderr)
    return faults[0].status


def _missing(line: CommandLine, reading: Reading, command: str) -> list[ConfigError]:
    """The fault of no application, unless an unknown option may have taken it."""
    given = "application" in reading.origins or "mount" in reading.origins
    if reading.settings.all_mounts() or line.undecided or given:
        return []
    from poolsrv.commands.guess import applications

    found = applications(Path(reading.settings.chdir or "."))
    quoted = [repr(name) if "(" in name else name for name in found]
    if not quoted:
        remedy = f"give the application: poolsrv {command} app:app"
    else:
        others = f" (there is also {', '.join(quoted[1:])})" if quoted[1:] else ""
        remedy = f"in this folder it could be: poolsrv {command} {quoted[0]}{others}"
    return [ConfigError("APP is missing", remedy)]


def _unexpected(word: str) -> ConfigError:
    name, equals, text = word.partition("=")
    if name.replace("-", "_") in ROWS and equals:
        return ConfigError(f"{word}: unexpected", f"write --{key(name)} {text}")
    if word.isdecimal() or re.fullmatch(r"[^/]*:[0-9]+", word):
        return ConfigError(f"{word}: unexpected", f"to listen there: --bind {word}")
    return ConfigError(f"{word}: unexpected", "there is one application, and flags take no value")


def _may_be_group(word: str) -> bool:
    """Of digits alone it is rather the pid of a server."""
    return bool(GROUP_NAME.fullmatch(word)) and not word.isdecimal()


def _no_server(name: str, word: str) -> ConfigError:
    """A word behind a command for the only server, where it may be meant to name one."""
    known = word if word.isdecimal() or "/" in word else "PID"
    return ConfigError(
        f"{word}: unexpected", f"a server is named by its pid: poolsrv {name} --control {known}"
    )


def _unknown_command(name: str, rest: Sequence[str]) -> ConfigError:
    import difflib

    if name.startswith("-"):
        words = [name, *rest]
        place = next((i for i, word in enumerate(words) if word in COMMANDS), None)
        ordered = ["serve", "app:app", *words]
        if place is not None:
            ordered = [*words[place:], *words[:place]]
        return ConfigError(
            f"{name}: there is no command in front of it",
            f"options follow the command: poolsrv {' '.join(ordered)}",
        )
    if ":" in name or name.endswith((".py", ".wsgi")):
        return ConfigError(f"{name}: there is no such command", f"write poolsrv serve {name}")
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    remedy = f"did you mean {near[0]}?" if near else "poolsrv serve app:app serves an application."
    fault = f"{name}: there is no such command"
    return ConfigError(fault, f"{remedy} poolsrv --help lists the commands")


def _width() -> int:
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:  # no terminal
        return 80


_ASKING = (("--help, -h", "Show this message and exit."),)


def _overview() -> str:
    summaries = [(name, summary) for name, (summary, _) in _summaries().items()]
    asking = [*_ASKING, ("--version", "Show the version and exit.")]
    return f"""\
Usage: poolsrv COMMAND

Serve WSGI applications with processes and threads, and see what they do.

Commands:
{columns([*summaries, *asking], _width())}

poolsrv COMMAND --help shows the options of a command."""


def _help(name: str, command: Command) -> str:
    options = "[OPTIONS]" if command.options else ""
    usage = " ".join(filter(None, ["Usage: poolsrv", name, command.operand, options]))
    parts = [usage, command.help]
    if command.switches:
        parts.append(f"Switches:\n{columns(command.switches.items(), _width())}")
    if command.options:
        parts.append(help_of_options(_width(), command.options))
    return "\n\n".join(parts)
