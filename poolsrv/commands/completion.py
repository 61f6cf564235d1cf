"""Completion for shells, written from the rows of options and the table of commands.

`poolsrv completion SHELL` prints a script. What a value may be is told by its
kind: a choice by its names, a file or a folder by the shell, anything else by
the person at the keyboard.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from poolsrv.settings.kinds import Kind
from poolsrv.settings.rows import ROWS, Row, key

# Commands with the first line of their help, and whether they take options of Settings.
Commands = Mapping[str, tuple[str, bool]]


def _options() -> Iterator[tuple[str, Row]]:
    for name, row in ROWS.items():
        if name != "application":
            yield key(name), row


def _choices(kind: Kind) -> list[str]:
    return kind.metavar.split("|") if "|" in kind.metavar else []


def _flags() -> Iterator[str]:
    for name, row in _options():
        yield f"--{name}"
        if row.kind.is_flag:
            yield f"--no-{name}"


def bash(commands: Commands) -> str:
    cases: dict[str, list[str]] = {}
    for name, row in _options():
        if row.kind.is_flag:
            continue
        match row.kind.metavar:
            case "FOLDER":
                action = 'mapfile -t COMPREPLY < <(compgen -d -- "$word")'
            case "FILE":
                action = 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'
            case _:
                names = " ".join(_choices(row.kind))
                action = f'mapfile -t COMPREPLY < <(compgen -W "{names}" -- "$word")'
        cases.setdefault(action, []).append(f"--{name}")
    values = "\n".join(
        f"        {'|'.join(names)})\n            {action}\n            return ;;"
        for action, names in cases.items()
    )
    serving = "|".join(name for name, (_, takes_options) in commands.items() if takes_options)
    return f"""\
# bash completion for poolsrv: source <(poolsrv completion bash)
_poolsrv() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "{" ".join(commands)} --help --version" -- "$word")
        return
    fi
    case $before in
{values}
    esac
    case ${{COMP_WORDS[1]}} in
        {serving}) ;;
        *) return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "{" ".join(_flags())} --help" -- "$word")
    else
        mapfile -t COMPREPLY < <(
            compgen -f -X '!*.py' -- "$word"
            compgen -f -X '!*.wsgi' -- "$word"
            compgen -d -- "$word"
        )
    fi
}}
complete -F _poolsrv poolsrv
"""


def zsh(commands: Commands) -> str:
    lines = []
    for name, row in _options():
        help = _quoted(row.help, "\\'[]:")
        if row.kind.is_flag:
            lines.append(f"'(--no-{name})--{name}[{help}]'")
            lines.append(f"'(--{name})--no-{name}[not\\: {help}]'")
            continue
        match row.kind.metavar:
            case "FOLDER":
                action = "_files -/"
            case "FILE":
                action = "_files"
            case _:
                action = f"({' '.join(_choices(row.kind))})" if _choices(row.kind) else " "
        times = "*" if row.kind.separator else ""
        lines.append(f"'{times}--{name}=[{help}]:{_quoted(row.kind.metavar, ':')}:{action}'")
    options = " \\\n                ".join(lines)
    serving = "|".join(name for name, (_, takes_options) in commands.items() if takes_options)
    described = "\n        ".join(
        f"'{name}:{_quoted(summary, chr(39))}'" for name, (summary, _) in commands.items()
    )
    return f"""\
#compdef poolsrv
# zsh completion for poolsrv: poolsrv completion zsh > a folder of $fpath, as _poolsrv
_poolsrv() {{
    local -a commands
    commands=(
        {described}
    )
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    ((CURRENT--))
    case $command in
        {serving})
            _arguments \\
                {options} \\
                '--help[Show this message and exit.]' \\
                '1:application:_files -g "*.(py|wsgi)"'
            ;;
    esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _poolsrv "$@"
else
    compdef _poolsrv poolsrv
fi
"""


def fish(commands: Commands) -> str:
    lines = ["# fish completion for poolsrv: poolsrv completion fish | source"]
    for name, (summary, _) in commands.items():
        lines.append(
            "complete -c poolsrv -f -n __fish_use_subcommand "
            f"-a {name} -d '{_quoted(summary, chr(39))}'"
        )
    serving = " ".join(name for name, (_, takes_options) in commands.items() if takes_options)
    where = f"complete -c poolsrv -n '__fish_seen_subcommand_from {serving}'"
    for name, row in _options():
        help = f"-d '{_quoted(row.help, chr(92) + chr(39))}'"
        if row.kind.is_flag:
            lines += [f"{where} -l {name} {help}", f"{where} -l no-{name} {help}"]
            continue
        match row.kind.metavar:
            case "FOLDER":
                value = "-x -a '(__fish_complete_directories)'"
            case "FILE":
                value = "-r -F"
            case _:
                value = f"-x -a '{' '.join(_choices(row.kind))}'" if _choices(row.kind) else "-x"
        lines.append(f"{where} -l {name} {value} {help}")
    return "\n".join(lines) + "\n"


def _quoted(text: str, special: Iterable[str]) -> str:
    """For single quotes; what is special there has a backslash in front."""
    for character in special:
        escaped = "'\\''" if character == "'" else f"\\{character}"
        text = text.replace(character, escaped)
    return text


SHELLS: Mapping[str, Callable[[Commands], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
