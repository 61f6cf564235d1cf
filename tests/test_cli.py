"""The commands as a user meets them: text, streams and exit statuses."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from poolsrv._version import __version__
from poolsrv.commands import cli
from poolsrv.errors import ApplicationError, ListenError, PoolsrvError
from poolsrv.settings.rows import ROWS, Settings, key

ROOT = Path(__file__).parent.parent


def run(cwd: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if "POOLSRV" not in name and name not in ("PORT", "WEB_CONCURRENCY")
    }
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


@pytest.mark.parametrize("arguments", [["help", "check"], ["--help", "check"]])
def test_help_of_a_command_may_be_asked_in_front(arguments: list[str], tmp_path: Path) -> None:
    assert run(tmp_path, *arguments).stdout == run(tmp_path, "check", "--help").stdout


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments: list[str], tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 0
    for command in cli.COMMANDS:
        assert f"  {command}  " in done.stdout


def test_help_of_serve_has_every_option_in_80_columns(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name in ROWS:
        assert name == "application" or f"  --{key(name)}" in done.stdout
    assert "  APP  " in done.stdout
    assert "[127.0.0.1:8000]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "fault", "remedy"),
    [
        (["serve"], "APP is missing", "give the application: poolsrv serve app:app"),
        (["serve", "a", "b"], "b: unexpected", "there is one application"),
        (["serve", "a", "8000"], "8000: unexpected", "to listen there: --bind 8000"),
        (["serve", "a", "threads=4"], "threads=4: unexpected", "write --threads 4"),
        (["serve", "a", "--threads", "x"], "--threads: 'x' is not allowed", "from 1 to 1024"),
        (
            ["serv", "a"],
            "serv: there is no such command",
            "did you mean serve? poolsrv --help lists",
        ),
        (["app:app"], "app:app: there is no such command", "write poolsrv serve app:app"),
        (["--bind", "a:1"], "--bind: there is no command in front of it", "follow the command"),
        # With one server running, these would stop or reload that, whichever was meant.
        (["stop", "999"], "999: unexpected", "poolsrv stop --control 999"),
        (["recycle", "all", "/run/a"], "/run/a: unexpected", "poolsrv recycle --control /run/a"),
        (["reload", "app:app"], "app:app: unexpected", "poolsrv reload --control PID"),
        (
            ["reload", "--threads", "8"],
            "--threads: poolsrv reload does not take it",
            "of poolsrv.toml, which a reload reads anew",
        ),
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


SHOP = """
print("a word of the application")
def app(environ, start_response): ...
async def later(environ, start_response): ...
"""


def test_check_of_what_could_be_served(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    done = run(tmp_path, "check", "shop:app", "--bind", "127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "a word of the application",
        "shop:app is a WSGI application, and the options are valid",
    ]


def test_check_says_all_that_is_wrong_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "poolsrv.toml").write_text('access-log = "no/access.log"\nthreads = 0\n')
    bind = ["--bind", "unix:no/shop.sock", "--bind", "unix:shop.sock", "--bind", "a.invalid:1"]
    roots = ["--sendfile-root", "no/files", "--sendfile-root", "/", "--sendfile-root", "."]
    done = run(tmp_path, "check", "shop:later", *bind, *roots)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if not line.startswith("  ")] == [
        "poolsrv: error: poolsrv.toml: threads: 0 is not allowed",
        "poolsrv: error: --access-log no/access.log: cannot be written to",
        f"poolsrv: error: unix:no/shop.sock: {tmp_path}/no does not exist or is not writable",
        "poolsrv: error: a.invalid:1: the host is not known: Name or service not known",
        "poolsrv: error: --sendfile-root no/files: there is no such folder",
        "poolsrv: error: --sendfile-root /: this is the whole file system",
        "poolsrv: error: 'shop:later' cannot be loaded: later is async, and WSGI applications are "
        "not awaited",
    ]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "poolsrv.toml",
        "shop.py",
    ]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "while it was loaded: signal 9",
        ),
        ("import os; os._exit(0)", "ended the process while it was loaded: exit status 0"),
        ("import signal; signal.pause()", "'shop:app' takes longer than 500ms to load"),
        (
            "import threading; threading.Thread(target=threading.Event().wait).start()",
            "has no 'app'",
        ),
    ],
)
def test_check_ends_whatever_the_application_does(source: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(source)
    done = run(tmp_path, "check", "shop:app", "--startup-timeout", "500ms")
    assert done.returncode == 3
    assert fault in done.stderr.splitlines()[0]


def test_a_long_traceback_is_passed_on_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("raise ValueError('\\x00' * 100_000)")
    done = run(tmp_path, "check", "shop:app")
    assert done.returncode == 3
    assert "importing shop failed" in done.stderr.splitlines()[0]


class Launcher(ModuleType):
    """In the place of poolsrv.launcher: starts nothing."""

    def __init__(self, outcome: int | PoolsrvError) -> None:
        super().__init__("poolsrv.launcher")
        self.outcome = outcome
        self.settings: Settings | None = None

    def launch(self, settings: Settings, read_again: Callable[[], Settings]) -> int:
        assert read_again() == settings
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
