"""A small application to look at: `poolsrv serve poolsrv.demo`.

Each page shows one thing that a server does for an application. Standard
library only, and no request can cost more than the limits below.
"""

import hashlib
import html
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Body = Iterable[bytes]

_MAX_SECONDS = 30.0
_MAX_MILLISECONDS = 1000.0
_LINES = 20
_READ_BYTES = 64 * 1024

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_HTML = "text/html; charset=utf-8"


class BadInput(Exception):
    """A parameter is no number or not within its bounds."""


def application(environ: Environ, start_response: StartResponse) -> Body:
    """The WSGI callable: PEP 3333."""
    status, fields, body = _answer(environ)
    if isinstance(body, bytes):
        fields.append(("Content-Length", str(len(body))))
        body = [body]
    start_response(status, fields)
    return body


def _answer(environ: Environ) -> tuple[str, list[tuple[str, str]], bytes | Body]:
    text = ("Content-Type", _TEXT)
    page = PAGES.get(environ["PATH_INFO"] or "/")
    if page is None:
        return "404 Not Found", [text], b"There is no such page.\n"
    methods, kind, view, _ = page
    if environ["REQUEST_METHOD"] not in methods:
        allow = ("Allow", ", ".join(methods))
        return "405 Method Not Allowed", [text, allow], b"Not with this method.\n"
    try:
        return "200 OK", [("Content-Type", kind)], view(environ)
    except BadInput as error:
        return "400 Bad Request", [text], f"{error}\n".encode()


def _index(_: Environ) -> bytes:
    items = "\n".join(
        f'<li><a href="{path[1:]}"><code>{path}</code></a> {html.escape(shows)}</li>'
        for path, (methods, _, _, shows) in PAGES.items()
        if "GET" in methods and path != "/"
    )
    return _INDEX.replace("ITEMS", items).encode()


def _hello(_: Environ) -> bytes:
    return b"Hello, World!\n"


def _json(environ: Environ) -> bytes:
    return _dumped({"message": "Hello, World!", "path": environ["PATH_INFO"], "numbers": [1, 2, 3]})


def _sleep(environ: Environ) -> bytes:
    seconds = _number(environ, "seconds", 0.01, _MAX_SECONDS)
    time.sleep(seconds)
    return f"Slept {seconds:g} s in pid {os.getpid()}.\n".encode()


def _cpu(environ: Environ) -> bytes:
    milliseconds = _number(environ, "milliseconds", 1.0, _MAX_MILLISECONDS)
    # The thread's own clock: the work is the same however many compete for the GIL.
    end = time.thread_time() + milliseconds / 1000
    rounds = 0
    while time.thread_time() < end:
        rounds += 1
    return f"Computed {milliseconds:g} ms ({rounds} rounds) in pid {os.getpid()}.\n".encode()


def _upload(environ: Environ) -> bytes:
    digest, length = hashlib.sha256(), 0
    while block := environ["wsgi.input"].read(_READ_BYTES):
        digest.update(block)
        length += len(block)
    return _dumped({"length": length, "sha256": digest.hexdigest()})


def _stream(_: Environ) -> Iterator[bytes]:
    for number in range(1, _LINES + 1):
        yield f"line {number} of {_LINES}\n".encode()
        time.sleep(0.1)


def _environ(environ: Environ) -> bytes:
    return "".join(f"{name} = {environ[name]!r}\n" for name in sorted(environ)).encode()


def _crash(_: Environ) -> bytes:
    raise RuntimeError("this page raises on purpose")


# path: methods, content type, view, what it shows
PAGES: dict[str, tuple[tuple[str, ...], str, Callable[[Environ], bytes | Body], str]] = {
    "/": (("GET", "HEAD"), _HTML, _index, "this page"),
    "/hello": (("GET", "HEAD"), _TEXT, _hello, "the least an application can do"),
    "/json": (("GET", "HEAD"), _JSON, _json, "a small document"),
    "/sleep": (("GET", "HEAD"), _TEXT, _sleep, "waits: ?seconds=0.01; other threads go on"),
    "/cpu": (("GET", "HEAD"), _TEXT, _cpu, "computes: ?milliseconds=1; other processes go on"),
    "/upload": (("POST", "PUT"), _JSON, _upload, "reads a body: its length and SHA-256"),
    "/stream": (("GET", "HEAD"), _TEXT, _stream, "two seconds of lines, each sent at once"),
    "/environ": (("GET", "HEAD"), _TEXT, _environ, "what the server tells the application"),
    "/crash": (("GET", "HEAD"), _TEXT, _crash, "raises: 500 here, the traceback in the log"),
}

_INDEX = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>poolsrv</title>
<style>
  body { font: 1rem/1.6 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1rem;
         color: #223; background: #fafafa }
  h1 { font-weight: 600; margin-bottom: 0 }
  ul { list-style: none; padding: 0 }
  li { padding: .4rem 0; border-bottom: 1px solid #e2e2ea }
  code { display: inline-block; min-width: 6rem }
  a { color: #2452a4; text-decoration: none }
  pre { background: #eef; padding: .6rem 1rem; overflow-x: auto }
</style>
<h1>poolsrv</h1>
<p>It serves. These pages show how:</p>
<ul>
ITEMS
</ul>
<p>A request body, from a shell:</p>
<pre>curl --data-binary @file http://127.0.0.1:8000/upload</pre>
</html>
"""


def _number(environ: Environ, name: str, default: float, maximum: float) -> float:
    given = parse_qs(environ.get("QUERY_STRING", "")).get(name)
    try:
        value = float(given[0]) if given else default
    except ValueError:
        value = math.nan
    if not 0 <= value <= maximum:
        raise BadInput(f"{name} is a number from 0 to {maximum:g}")
    return value


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
