"""The commands as a user meets them: text, streams and exit statuses."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from poolsrv import cli
from poolsrv._version import __version__
from poolsrv.errors import ApplicationError, ListenError, PoolsrvError
from poolsrv.settings.rows import Settings

ROOT = Path(__file__).parent.parent


def run(cwd: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if "POOLSRV" not in name}
    return subprocess.run(
        [sys.executable, "-m", "poolsrv", *arguments],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version(tmp_path: Path) -> None:
    done = run(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"poolsrv {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments: list[str], tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 0
    assert "  serve  " in done.stdout
    assert "  config  " in done.stdout


def test_help_of_serve_has_every_option_in_80_columns(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for option in fields(Settings):
        assert option.name == "application" or f"  --{option.name.replace('_', '-')}" in done.stdout
    assert "  APP  " in done.stdout
    assert "[127.0.0.1:8000]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "fault", "remedy"),
    [
        (["serve"], "APP is missing", "give the application: poolsrv serve app:app"),
        (["serve", "a", "b"], "b: unexpected", "there is one application"),
        (["serve", "a", "threads=4"], "threads=4: unexpected", "write --threads 4"),
        (["serve", "a", "--threads", "x"], "--threads: 'x' is not allowed", "from 1 to 1024"),
        (["serv", "a"], "serv: there is no such command", "did you mean serve? the commands are"),
        (["app:app"], "app:app: there is no such command", "write poolsrv serve app:app"),
        (["--bind", "a:1"], "--bind: there is no command in front of it", "follow the command"),
    ],
)
def test_mistakes_are_a_line_of_fault_and_one_of_remedy_and_status_2(
    arguments: list[str], fault: str, remedy: str, tmp_path: Path
) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first == f"poolsrv: error: {fault}"
    assert second.startswith("  ")
    assert remedy in second


def test_all_mistakes_are_said(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--workers", "4", "--threads", "x", POOLSRV_PRELOAD="maybe")
    assert [line for line in done.stderr.splitlines() if not line.startswith("  ")] == [
        "poolsrv: error: --workers: there is no such option",
        "poolsrv: error: --threads: 'x' is not allowed",
        "poolsrv: error: POOLSRV_PRELOAD: 'maybe' is not allowed",
    ]


def test_config_shows_values_and_origins(tmp_path: Path) -> None:
    (tmp_path / "poolsrv.toml").write_text('queue-timeout = "1.5m"\n')
    done = run(tmp_path, "config", "app:app", "--threads", "8", POOLSRV_PRELOAD="1")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["application", "app:app", "APP"] in rows
    assert ["threads", "8", "--threads"] in rows
    assert ["preload", "true", "POOLSRV_PRELOAD"] in rows
    assert ["queue-timeout", "90s", "poolsrv.toml:", "queue-timeout"] in rows
    assert ["backlog", "4096", "default"] in rows


class Launcher(ModuleType):
    """In the place of poolsrv.launcher: starts nothing."""

    def __init__(self, outcome: int | PoolsrvError) -> None:
        super().__init__("poolsrv.launcher")
        self.outcome = outcome
        self.settings: Settings | None = None

    def launch(self, settings: Settings) -> int:
        self.settings = settings
        if isinstance(self.outcome, PoolsrvError):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (0, 0, ""),
        (ApplicationError("no such module"), 3, "poolsrv: error: no such module\n"),
        (ListenError("in use"), 4, "poolsrv: error: in use\n"),
    ],
)
def test_serve_launches_and_ends_with_its_status(
    outcome: int | PoolsrvError,
    status: int,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    launcher = Launcher(outcome)
    monkeypatch.setitem(sys.modules, "poolsrv.launcher", launcher)
    monkeypatch.setattr(sys, "argv", ["poolsrv", "serve", "app:app", "--threads", "2"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == status
    assert capsys.readouterr().err == error
    assert launcher.settings is not None
    assert (launcher.settings.application, launcher.settings.threads) == ("app:app", 2)
