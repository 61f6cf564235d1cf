"""The fixture `poolsrv_server`, for pytest where poolsrv is installed.

An entry point: each run of pytest imports it, so it imports nothing until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from poolsrv.single.testing import Running


@pytest.fixture
def poolsrv_server() -> Iterator[Callable[..., Running]]:
    """Serve a WSGI application until the end of the test: poolsrv_server(app).url.

    It takes the options of poolsrv.running; several servers may run in one test.
    """
    from poolsrv import running

    with ExitStack() as stack:

        def start(application: Callable[..., Any], **options: object) -> Running:
            return stack.enter_context(running(application, **options))

        yield start
