"""Fixtures that start real servers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server import Server, serving


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
            **options: object,
        ) -> Server:
            options = {"processes": 1, "threads": 4} | options
            return stack.enter_context(
                serving(app, tmp_path, env=env, allow_errors=allow_errors, **options)
            )

        yield start
