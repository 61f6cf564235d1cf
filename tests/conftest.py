"""Fixtures that start real servers, and what sanitizers had to say of them."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from poolsrv import _core
from tests.server import Server, serving

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Where tests/cores has every process of a sanitized core report, one file each.
BUILD = os.environ.get("CORE_BUILD")
REPORTS = Path(BUILD, "reports") if BUILD else None


def pytest_sessionstart() -> None:
    if REPORTS:
        assert Path(_core.__file__).is_relative_to(REPORTS.parent), "it is the usual core"
    if REPORTS and "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(REPORTS, ignore_errors=True)
        REPORTS.mkdir(parents=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A report fails the run, whichever process it is of, and whatever its test made of that."""
    if REPORTS and any(REPORTS.iterdir()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in sorted(REPORTS.iterdir()) if REPORTS else ():
        terminalreporter.section(f"sanitizer: {report.name}")
        terminalreporter.write_line(report.read_text(errors="backslashreplace"))


@pytest.fixture(autouse=True)
def signal_mask() -> Iterator[None]:
    """Signals that a test leaves blocked reach no program that a later one starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == before


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A factory: `server(app, processes=2, threads=4, allow_errors=..., **options)`.

    What a server must show at the end of the test is written at `serving`.
    """
    with ExitStack() as stack:

        def start(
            app: str = "tests.apps.hello:app",
            *,
            env: dict[str, str] | None = None,
            allow_errors: str | None = None,
            through: Sequence[str] = (),
            **options: object,
        ) -> Server:
            options = {"processes": 1, "threads": 4} | options
            return stack.enter_context(
                serving(
                    app, tmp_path, env=env, allow_errors=allow_errors, through=through, **options
                )
            )

        yield start
