"""An application that keeps the interpreter to itself for a while."""

from collections.abc import Callable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """One operation, within which no other thread runs Python."""
    print("holding", file=environ["wsgi.errors"], flush=True)
    size = (3**4_000_000).bit_length()
    start_response("200 OK", [])
    return [str(size).encode()]
