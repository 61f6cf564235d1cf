"""What can be a WSGI application is served; what cannot is refused, with the remedy."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flask
import pytest
import werkzeug
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from poolsrv.worker.callables import fault_of


def plain(environ: Any, start_response: Any) -> list[bytes]:
    return []


def open_ended(*arguments: Any) -> list[bytes]:
    return []


def with_more(environ: Any, start_response: Any, more: Any = None) -> list[bytes]:
    return []


def all_have_defaults(environ: Any = None, start_response: Any = None) -> list[bytes]:
    return []


def three(first: Any, environ: Any, start_response: Any) -> list[bytes]:
    return []


def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
    yield b""


class Instance:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    @staticmethod
    def static(environ: Any, start_response: Any) -> list[bytes]:
        return []


class Iterated:
    """The second form of PEP 3333: the class is called, its instances are the answer."""

    def __init__(self, environ: Any, start_response: Any) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        yield b""


class Made:
    """Calling it gives no instance of it, but an answer."""

    def __new__(cls, environ: Any, start_response: Any) -> Any:
        return [b""]


class Indexed:
    """Iterated over in the oldest way."""

    def __init__(self, environ: Any, start_response: Any) -> None:
        pass

    def __getitem__(self, index: int) -> bytes:
        raise IndexError


@werkzeug.Request.application
def of_a_request(request: werkzeug.Request) -> werkzeug.Response:
    return werkzeug.Response("hello")


@pytest.mark.parametrize(
    "application",
    [
        *(Made, Indexed, of_a_request, werkzeug.Response("hello")),
        *(plain, open_ended, with_more, all_have_defaults, generator, partial(three, None)),
        *(lambda environ, start_response: [], Instance(), Instance().method, Instance.static),
        *(Iterated, flask.Flask("shop"), WSGIHandler.__new__(WSGIHandler)),
        # Without a signature, or with one that tells nothing.
        *(print, type("Odd", (), {"__call__": print})()),
    ],
)
def test_applications(application: Any) -> None:
    assert fault_of(application, "app", str) is None


async def awaited(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    pass


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pass


def create_app(config: Any = None, debug: bool = False) -> Any:
    return plain


def nothing_needed() -> Any:
    return plain


class NeedsOne:
    def __init__(self, name: str) -> None:
        pass


class NeedsOneAndIterates(NeedsOne):
    def __iter__(self) -> Iterator[bytes]:
        yield b""


def of_module(module: str) -> object:
    return type("App", (), {"__module__": module, "__call__": lambda self, s, r, t: None})()


@pytest.mark.parametrize(
    ("found", "fault", "remedy"),
    [
        (None, "app is None", "give the WSGI callable itself"),
        ("text", "app is a str, no callable", "give the WSGI callable itself"),
        (8, "app is an int, no callable", "give the WSGI callable itself"),
        (pytest, "app is a module", "name the callable in it"),
        (awaited, "app is async", "make it a plain function"),
        (partial(awaited, {}), "app is async", "make it a plain function"),
        (asgi, "app is an ASGI application", "a2wsgi.ASGIMiddleware(app)"),
        (Asgi(), "app is an ASGI application", "a2wsgi.ASGIMiddleware(app)"),
        (three, "app takes first, environ, start_response", "uvicorn"),
        (nothing_needed, "app needs no arguments", "call it: m:app()"),
        (create_app, "app can be called without arguments", "call it: m:app()"),
        (partial(three, 1, 2, 3), "app needs no arguments", "call it"),
        (Instance, "app is a class", "an instance of it, perhaps: m:app()"),
        (flask.Flask, "app is a class", "an instance of it, perhaps: m:app()"),
        (NeedsOneAndIterates, "app cannot be called with two arguments", "environ and start_resp"),
        (ASGIHandler.__new__(ASGIHandler), "app is the ASGI handler of Django", "wsgi.py instead"),
        (of_module("fastapi.applications"), "app is an ASGI application of FastAPI", "uvicorn"),
        (of_module("quart.app"), "app is an ASGI application of Quart", "Flask"),
        (of_module("falcon.asgi.app"), "app is an ASGI application of Falcon", "falcon.App()"),
        (of_module("aiohttp.web_app"), "app is an application of aiohttp", "its own server"),
        (
            type("Sub", (type(of_module("starlette.applications")),), {})(),
            "of Starlette",
            "uvicorn",
        ),
    ],
)
def test_what_is_none(found: Any, fault: str, remedy: str) -> None:
    said = fault_of(found, "app", lambda name: f"m:{name}")
    assert said is not None
    assert fault in said[0]
    assert remedy in said[1]


@pytest.mark.parametrize("module", ["fastapi_like", "quartz.app", "falcon.app", "channelsx"])
def test_a_module_of_a_similar_name_is_another(module: str) -> None:
    made = type("App", (), {"__module__": module, "__call__": lambda self, e, s: []})()
    assert fault_of(made, "app", str) is None


def test_a_factory_that_is_async() -> None:
    coroutine = awaited({}, None)
    assert fault_of(coroutine, "create()", str) == (
        "create() is a coroutine: the factory is async",
        "make it a plain function",
    )
