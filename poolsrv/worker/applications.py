"""All applications of a worker: loaded one after the other, each once.

Runs where applications are loaded: in a worker, or in the template when preload is on.
"""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from poolsrv.errors import ApplicationError
from poolsrv.settings.interpreters import homes
from poolsrv.settings.mounts import DEFAULT_GROUP, Mount, applications, own_of
from poolsrv.settings.rows import Settings
from poolsrv.worker.loader import import_module, load, prepare, wrap
from poolsrv.worker.networks import network

Application = Callable[..., Any]


def load_all(
    settings: Settings,
    called: Application | None = None,
    folder: str | None = None,
    pinned: str | None = None,
    interpreter: int = 1,
) -> tuple[Application, ...]:
    """The applications of the mounts, in the order of `applications`. Raises PoolsrvError.

    `called` is the callable of a program that serves its own. `folder` and `pinned` are
    those of `prepare`, which is run unless nothing needs to be imported. The first of
    --wrap is the outermost. What is only in another `interpreter` is not loaded.
    """
    mounts = settings.own_mounts(called is not None)
    if must_load(settings, called):
        prepare(settings, folder, pinned)
    for name in settings.import_:
        import_module(name)
    projects = _Projects()
    found: list[Application] = []
    here = [home in (0, interpreter) for home in homes(mounts)]
    for spec, is_here in zip(applications(mounts), here, strict=True):
        if not is_here:
            found.append(elsewhere)
            continue
        if called is not None and not spec:
            found.append(called)
            continue
        found.append(projects.watch(spec, partial(load, spec)))
    for spec in reversed(settings.wrap):
        found = [wrap(spec, inner) if inner is not elsewhere else inner for inner in found]
    return tuple(found)


def elsewhere(environ: dict[str, Any], start_response: Callable[..., Any]) -> NoReturn:
    raise RuntimeError("the application is in another interpreter")


def must_load(settings: Settings, called: Application | None) -> bool:
    """Is there anything to import?"""
    return called is None or bool(settings.mount or settings.import_ or settings.wrap)


class _Projects:
    """Sees to it that one Django project at most is in the process.

    Its settings are the process's: the first one that is loaded configures them, and every
    other one would serve the pages of the first, without a word.
    """

    def __init__(self) -> None:
        self._first = ""
        self._known = 0
        # Who names the settings from outside has one project, perhaps with two handlers.
        self._is_named = "DJANGO_SETTINGS_MODULE" in os.environ

    def watch(self, spec: str, action: Callable[[], Application]) -> Application:
        """Load one. Raises ApplicationError if it is the second project."""
        loaded = action()
        handlers = _handlers()
        if handlers > self._known and not self._is_named:
            if self._first:
                raise ApplicationError(
                    f"{self._first!r} and {spec!r} are two Django projects, and a process can "
                    "have the settings of one",
                    "give each a group of processes (group = in its [[mount]]), or an interpreter "
                    "(interpreter = 2 there, Python 3.13); or, if they are one project, "
                    "name its settings in the environment: DJANGO_SETTINGS_MODULE",
                )
            self._first = spec
        self._known = handlers
        return loaded


def _handlers() -> int:
    """How many WSGI handlers of Django there are, also inside of middleware."""
    module = sys.modules.get("django.core.handlers.wsgi")
    kind = getattr(module, "WSGIHandler", None)
    if kind is None:
        return 0
    return sum(type(found) is kind for found in gc.get_objects())


def _everywhere(mount: Mount) -> Mount:
    """Its application, at every path and for everybody."""
    return Mount(
        "/",
        application=mount.application,
        called=mount.called,
        group=mount.group,
        interpreter=mount.interpreter,
    )


def core_mounts(
    mounts: Sequence[Mount], group: str = DEFAULT_GROUP, names: Sequence[str] = (DEFAULT_GROUP,)
) -> tuple[tuple[Any, ...], ...]:
    """What the core takes as `mounts`; () for one application that is everywhere.

    `group` is that of this process, one of `names`: the applications of the others are not here.
    """
    if len(mounts) == 1 and mounts[0] == _everywhere(mounts[0]) and mounts[0].group == group:
        return ()
    places = applications(own_of(mounts, group))
    folders = [mount for mount in mounts if mount.files]
    numbers = _numbers(names)
    return tuple(
        (
            mount.host.encode(),
            mount.prefix,
            mount.inner,
            mount.kind,
            places.index(mount.application)
            if mount.has_application and mount.group == group
            else -1,
            folders.index(mount) if mount.files else -1,
            numbers[mount.group if mount.has_application else group],
            mount.status,
            tuple(map(network, mount.allow)),
        )
        for mount in mounts
    )


def core_routes(mounts: Sequence[Mount], names: Sequence[str]) -> tuple[tuple[Any, ...], ...]:
    """What the core takes as `routes`: which of these groups answers, -1 for each of them."""
    numbers = _numbers(names)
    return tuple(
        (
            mount.host.encode(),
            mount.prefix,
            numbers[mount.group] if mount.has_application else -1,
        )
        for mount in mounts
    )


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """Of groups, by name."""
    return {name: number for number, name in enumerate(names)}


def script_names(mounts: tuple[tuple[Any, ...], ...]) -> tuple[str, ...]:
    """SCRIPT_NAME of each of `core_mounts`."""
    return tuple(path[: len(path) - inner].decode("latin-1") for _, path, inner, *_ in mounts)
