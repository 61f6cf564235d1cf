"""Applications that answer with X-Sendfile, in the ways that it is done."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

StartResponse = Callable[..., Callable[[bytes], object]]


class Body:
    """It is closed once, and nobody reads it."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.log = environ["wsgi.errors"]

    def __iter__(self) -> Iterator[bytes]:
        print("body: read", file=self.log)
        yield b"the body"

    def close(self) -> None:
        print("body: closed", file=self.log)


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """`path`: what X-Sendfile says; `status`; `field`: more fields, NAME:VALUE."""
    query = parse_qs(environ["QUERY_STRING"])
    headers = [("X-Sendfile", path) for path in query.get("path", [])]
    headers += [
        (name, value) for name, _, value in (text.partition(":") for text in query.get("field", []))
    ]
    status = query.get("status", ["200 OK"])[0]
    match environ["PATH_INFO"]:
        case "/list":
            start_response(status, headers)
            return [b"the body"]
        case "/object":
            start_response(status, headers)
            return Body(environ)
        case "/generator":
            return lazily(start_response, status, headers)
        case "/empty":
            start_response(status, headers)
            return ()
        case "/wrapper":
            start_response(status, headers)
            file = Path(__file__).open("rb")  # noqa: SIM115 the wrapper closes it
            wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
            return wrapper
        case "/write":
            start_response(status, headers)(b"the ")
            return [b"body"]
    start_response("404 Not Found", [])
    return []


def lazily(
    start_response: StartResponse, status: str, headers: list[tuple[str, str]]
) -> Iterator[bytes]:
    start_response(status, headers)
    yield b"the body"


def flask() -> Any:
    """A site that leaves files to its server: ROOT is where they lie."""
    from flask import Flask, Response, send_from_directory

    site = Flask(__name__)
    site.config["USE_X_SENDFILE"] = True

    @site.get("/<path:name>")
    def file(name: str) -> Response:
        return send_from_directory(os.environ["ROOT"], name)

    return site
