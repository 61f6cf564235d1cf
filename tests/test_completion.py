"""What shells offer, asked of the shells themselves."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from poolsrv.commands import cli
from poolsrv.commands.completion import SHELLS
from poolsrv.settings.rows import ROWS, key

pytestmark = pytest.mark.once


def script(shell: str) -> str:
    return SHELLS[shell](cli._summaries())


def run(folder: Path, *command: str) -> str:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "lib").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_and_command_is_in_it(shell: str) -> None:
    words = script(shell)
    assert all(f"{key(name)}" in words for name in ROWS if name != "application")
    assert all(name in words for name in cli.COMMANDS)


def in_bash(folder: Path, *words: str) -> list[str]:
    (folder / "poolsrv.bash").write_text(script("bash"))
    quoted = " ".join(f"'{word}'" for word in words)
    ask = (
        f"source poolsrv.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        '_poolsrv; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return run(folder, "bash", "-c", ask).split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["poolsrv", "ser"], ["serve"]),
        (["poolsrv", "serve", "--unix"], ["--unix-mode", "--unix-owner"]),
        (["poolsrv", "serve", "--no-pre"], ["--no-preload"]),
        (["poolsrv", "serve", "--log-format", ""], ["text", "json"]),
        (["poolsrv", "serve", "--chdir", ""], ["lib"]),
        (["poolsrv", "serve", "--config", "no"], ["notes.txt"]),
        (["poolsrv", "serve", "--threads", ""], []),
        (["poolsrv", "serve", "s"], ["shop.py"]),
        (["poolsrv", "completion", "--"], []),
    ],
)
def test_bash(words: list[str], offered: list[str], folder: Path) -> None:
    assert in_bash(folder, *words) == offered


def test_fish(folder: Path) -> None:
    (folder / "poolsrv.fish").write_text(script("fish"))

    def offered(words: str) -> list[str]:
        lines = run(folder, "fish", "-N", "-c", f"source poolsrv.fish; complete -C '{words}'")
        return [line.split("\t")[0] for line in lines.splitlines()]

    assert "check" in offered("poolsrv c")
    assert offered("poolsrv serve --log-fo") == ["--log-format"]
    assert offered("poolsrv serve --log-format ") == ["json", "text"]
    assert offered("poolsrv serve --unix-") == ["--unix-mode", "--unix-owner"]


def test_zsh_takes_it_for_poolsrv(folder: Path) -> None:
    (folder / "_poolsrv").write_text(script("zsh"))
    ask = (
        "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; autoload +X _poolsrv; "
        "print -r -- ${_comps[poolsrv]}"
    )
    assert run(folder, "zsh", "-f", "-c", ask).split() == ["_poolsrv"]
