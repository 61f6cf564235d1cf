"""Applications that say where they are."""

from collections.abc import Callable
from typing import Any

Application = Callable[..., list[bytes]]


def named(name: str) -> Application:
    """One that answers with its name, SCRIPT_NAME and PATH_INFO, a line each."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["wsgi.input"].read()
        words = (name, environ["SCRIPT_NAME"], environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return ["\n".join(words).encode("latin-1")]

    return application


root = named("root")
api = named("api")
v2 = named("v2")
other = named("other")
