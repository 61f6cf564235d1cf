"""What is imported, wrapped and warmed up; each says so in the environment."""

import os
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[..., Iterable[bytes]]


def note(word: str) -> None:
    """Keep the order in which things happened."""
    os.environ["NOTES"] = f"{os.environ.get('NOTES', '')} {word}".strip()


note("imported")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with what has happened; /fail and /raise do so."""
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise LookupError("the database is not there")
    asked = f"{environ['HTTP_HOST']}{environ['SCRIPT_NAME']}{path}?{environ['QUERY_STRING']}"
    note(f"GET:{asked}")
    words = os.environ["NOTES"] + environ.get("wrapped", "")
    start_response("500 Broken" if path == "/fail" else "200 OK", [])
    yield words.encode()


def outer(application: Application) -> Application:
    return lambda environ, start: application(
        environ | {"wrapped": environ.get("wrapped", "") + " outer"}, start
    )


def named(name: str) -> Callable[[Application], Application]:
    def wrap(application: Application) -> Application:
        return lambda environ, start: application(
            environ | {"wrapped": f"{environ.get('wrapped', '')} {name}"}, start
        )

    return wrap


def forgets(application: Application) -> None:
    """Middleware that returns nothing."""


def nothing() -> None:
    """No middleware at all."""
