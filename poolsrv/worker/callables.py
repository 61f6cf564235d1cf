"""Can this object be a WSGI application? What else it is, and what to do instead.

Knows no way of loading. Judges by type and signature only, and refuses what
cannot work: what might, is served.
"""

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import CoroutineType, ModuleType
from typing import Any

_OTHER_SERVER = "serve it with uvicorn or hypercorn, or wrap it: a2wsgi.ASGIMiddleware(app)"

# Classes of these modules, with what they are and the remedy. Longer names first.
_NO_WSGI: dict[str, tuple[str, str]] = {
    "django.core.handlers.asgi": (
        "the ASGI handler of Django",
        "take the project's wsgi.py instead: poolsrv serve mysite.wsgi",
    ),
    "falcon.asgi": ("an ASGI application of Falcon", "falcon.App() is the one for WSGI"),
    "asgiref.wsgi": ("an ASGI wrapper of a WSGI application", "give the one inside of it"),
    "a2wsgi.wsgi": ("an ASGI wrapper of a WSGI application", "give the one inside of it"),
    "quart": (
        "an ASGI application of Quart",
        "Flask is its like for WSGI; or serve it with hypercorn",
    ),
    "fastapi": ("an ASGI application of FastAPI", _OTHER_SERVER),
    "starlette": ("an ASGI application of Starlette", _OTHER_SERVER),
    "litestar": ("an ASGI application of Litestar", _OTHER_SERVER),
    "blacksheep": ("an ASGI application of BlackSheep", _OTHER_SERVER),
    "channels": ("an ASGI application of Channels", _OTHER_SERVER),
    "socketio.asgi": (
        "an ASGI application of python-socketio",
        "socketio.WSGIApp is the one for WSGI",
    ),
    "sanic": ("an application of Sanic", "it brings its own server: sanic module:app"),
    "aiohttp": ("an application of aiohttp", "it brings its own server: aiohttp.web.run_app(app)"),
    "tornado": ("an application of Tornado", "it brings its own server: app.listen(8000)"),
}

_CALL = "a WSGI application is called with environ and start_response"
_FACTORY = re.compile("(?:create|make|build|get)(?:_.*)?_app(?:lication)?|app_factory")


def fault_of(found: Any, name: str, write: Callable[[str], str]) -> tuple[str, str] | None:
    """Fault and remedy if `found`, which the user calls `name`, is no WSGI application.

    `write` gives the text by which the user would name another object.
    """
    if isinstance(found, CoroutineType):
        found.close()
        return f"{name} is a coroutine: the factory is async", "make it a plain function"
    if isinstance(found, ModuleType):
        return f"{name} is a module, no callable", "name the callable in it, such as module:app"
    if not callable(found):
        remedy = "give the WSGI callable itself"
        if found is None and name.endswith(")"):
            remedy = "does the factory return the application?"
        return f"{name} is {described(found)}, no callable", remedy
    return _framework(found, name) or _awaited(found, name) or _called(found, name, write)


def described(found: object) -> str:
    """What it is, in words."""
    kind = type(found).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    return "None" if found is None else f"{article} {kind}"


def _framework(found: Any, name: str) -> tuple[str, str] | None:
    modules = [base.__module__ for base in inspect.getmro(type(found))]
    for module, (what, remedy) in _NO_WSGI.items():
        if any(other == module or other.startswith(f"{module}.") for other in modules):
            return f"{name} is {what}, no WSGI application", remedy
    return None


def _awaited(found: Any, name: str) -> tuple[str, str] | None:
    inner = found
    while isinstance(inner, partial):
        inner = inner.func
    call = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner).__call__
    if not inspect.iscoroutinefunction(call) and not inspect.isasyncgenfunction(call):
        return None
    if len(_required(found)) == 3:
        return f"{name} is an ASGI application, no WSGI application", _OTHER_SERVER
    return f"{name} is async, and WSGI applications are not awaited", "make it a plain function"


def _called(found: Any, name: str, write: Callable[[str], str]) -> tuple[str, str] | None:
    call = write(f"{name}()")
    if inspect.isclass(found) and _makes_itself(found) and not _can_be_iterated(found):
        return (
            f"{name} is a class, and what it makes is no response: it cannot be iterated over",
            f"an instance of it, perhaps: {call}",
        )
    try:
        signature = _signature(found)
    except (TypeError, ValueError):  # of C, without a signature: it may be one
        return None
    try:
        signature.bind({}, None)
    except TypeError:
        required = _required(found)
        if not required:
            return (
                f"{name} needs no arguments: it seems to make the application",
                f"call it: {call}",
            )
        if len(required) == 3:
            return f"{name} takes {', '.join(required)}: it seems to be for ASGI", _OTHER_SERVER
        return f"{name} cannot be called with two arguments, but with {signature}", _CALL
    if inspect.isfunction(found) and _FACTORY.fullmatch(found.__name__) and not _required(found):
        return f"{name} can be called without arguments: it seems to make the application", (
            f"call it: {call}"
        )
    return None


def _required(found: Any) -> list[str]:
    """The positional parameters without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = _signature(found).parameters.values()
    except (TypeError, ValueError):
        return []
    return [item.name for item in parameters if item.kind in kinds and item.default is item.empty]


def _signature(found: Any) -> inspect.Signature:
    # Not that of what a decorator wraps: werkzeug's Request.application makes a
    # WSGI application of a function that takes a request.
    return inspect.signature(found, follow_wrapped=False)


def _makes_itself(found: type) -> bool:
    """Does calling the class give an instance of it? Otherwise it may give anything."""
    has_new = any("__new__" in vars(base) for base in found.__mro__ if base is not object)
    return not has_new and type(found).__call__ is type.__call__


def _can_be_iterated(found: type) -> bool:
    return hasattr(found, "__iter__") or hasattr(found, "__getitem__")
