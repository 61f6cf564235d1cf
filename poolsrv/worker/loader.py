"""From the text of APP to the callable behind it.

Runs where the application is loaded: in a worker, or in the template when
preload is on. Whatever the user's code raises meanwhile becomes one
ApplicationError with the user's own traceback; frames of ours and of the
import system are left out.
"""

import ast
import difflib
import importlib
import importlib.machinery
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar, cast

from poolsrv.errors import ApplicationError, ConfigError
from poolsrv.settings.rows import Settings
from poolsrv.worker.callables import fault_of

T = TypeVar("T")

# What is looked for when APP names no callable: mod_wsgi's name, then Flask's.
_USUAL_NAMES = ("application", "app")

_FORMS = "give module:callable, module:factory() with literal arguments, module or path/to/file.py"
_NEITHER = "is neither a name nor a call"

_IMPORT_SYSTEM = ("<frozen importlib", str(importlib.__file__))

_MISSING = object()


def started_in() -> str:
    """The working folder, by the name that the shell knows it by.

    That may lead through a link which a deploy turns to the next release (`current`): the
    folder itself would be the release of now, also for each reload.
    """
    named = Path(os.environ.get("PWD", ""))
    try:
        if named.is_absolute() and named.samefile("."):
            return str(named)
    except OSError:
        pass  # the variable is of another time or place
    return str(Path.cwd())


def enter(folder: str) -> None:
    """Go into the folder that the server was started in. Raises ConfigError."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigError(
            f"the folder that the server was started in, {folder}: {error.strerror}",
            "put it back, or give another with --chdir",
        ) from None


def release(settings: Settings) -> str | None:
    """The folder that --chdir leads to now, for all workers of a generation.

    A deploy turns a link first and asks for the reload later: a worker that is replaced in
    between must not serve other code than its siblings.
    """
    return None if settings.chdir is None else str(Path(settings.chdir).resolve())


def prepare(settings: Settings, folder: str | None = None, pinned: str | None = None) -> None:
    """Make this process's folder and sys.path what the application expects.

    `folder` is where the server was started: it may have been replaced since, and we
    would be in the one that is gone. `pinned` is the `release` of our generation: if it
    has been removed, what takes its place serves rather than nothing.

    The working directory comes first on the path, then Settings.pythonpath. The environment
    gets Settings.environment.
    Raises ConfigError for a folder that is not there.
    """
    if folder is not None:
        enter(folder)
    if settings.chdir is not None:
        try:
            os.chdir(pinned if pinned is not None and Path(pinned).is_dir() else settings.chdir)
        except OSError as error:
            raise ConfigError(
                f"chdir: {settings.chdir}: {error.strerror}", "give a folder that is there"
            ) from None
    folders = [Path(added).absolute() for added in settings.pythonpath]
    for added in folders:
        if not added.is_dir():
            raise ConfigError(f"pythonpath: {added} is not a folder", "give one that is there")
    sys.path[:0] = map(str, [Path.cwd(), *folders])
    os.environ.update((variable.name, variable.value) for variable in settings.environment)


def refuse_patched_threads() -> None:
    """Raises ApplicationError if gevent or eventlet has replaced threads by its own."""
    gevent = sys.modules.get("gevent.monkey")
    eventlet = sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        library = "gevent"
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        library = "eventlet"
    else:
        return
    raise ApplicationError(
        f"the application has let {library} replace Python's threads, and poolsrv serves with "
        f"real ones; take out {library}'s monkey patching, and give more --threads for requests "
        "that wait"
    )


def call_named(what: str, spec: str) -> None:
    """Call module:function without arguments. Raises ApplicationError."""
    place, _, name = spec.partition(":")
    try:
        if not name:
            raise ApplicationError("it names no function", "give module:function")
        module = _run_file(place) if _is_file(place) else _import(place)
        function = _attribute(module, name.split("."))
        guarded(f"calling {name} failed", function)
    except ApplicationError as error:
        fault, remedy = error.args
        raise ApplicationError(f"{what}: {fault}", remedy) from error


def load(spec: str) -> Callable[..., Any]:
    """The WSGI callable that `spec` names. Raises ApplicationError.

    `module:callable`, `module:factory(1, key="value")`, `module`, and in place
    of the module also `path/to/file.py` or `.wsgi`. Names may be dotted.
    """
    place, _, expression = spec.partition(":")
    try:
        module, found = _find(place, expression)
        name = expression or _usual_name(module)
        if wrong := fault_of(found, name, lambda name: f"{place}:{name}"):
            raise ApplicationError(*wrong)
    except ApplicationError as error:
        fault, remedy = error.args
        raise ApplicationError(f"{spec!r} cannot be loaded: {fault}", remedy) from error
    return cast(Callable[..., Any], found)


def _find(place: str, expression: str) -> tuple[ModuleType, Any]:
    """The module, and what the expression makes of it, or its usual callable."""
    names, arguments = _parse(expression) if expression else ([], None)
    module = _run_file(place) if _is_file(place) else _import(place)
    found = _attribute(module, names) if names else _usual(module)
    if arguments is not None:
        found = guarded(
            f"calling {expression} failed", lambda: found(*arguments[0], **arguments[1])
        )
    return module, found


def import_module(name: str) -> None:
    """Raises ApplicationError."""
    try:
        _import(name)
    except ApplicationError as error:
        fault, remedy = error.args
        raise ApplicationError(f"--import {name}: {fault}", remedy) from error


def wrap(spec: str, application: Callable[..., Any]) -> Callable[..., Any]:
    """What the middleware that `spec` names makes of it. Raises ApplicationError."""
    place, _, expression = spec.partition(":")
    try:
        if not expression:
            raise ApplicationError("it names no middleware", "give module:callable")
        _, middleware = _find(place, expression)
        wrapped = guarded(
            f"calling {expression} with the application failed", lambda: middleware(application)
        )
        if wrong := fault_of(wrapped, f"what {expression} makes", lambda name: name):
            raise ApplicationError(
                wrong[0], "middleware takes an application and returns one; " + wrong[1]
            )
    except ApplicationError as error:
        fault, remedy = error.args
        raise ApplicationError(f"--wrap {spec}: {fault}", remedy) from error
    return cast(Callable[..., Any], wrapped)


def require(application: object) -> None:
    """Raises ApplicationError if this is no WSGI application, but what else was at hand."""
    name = getattr(application, "__name__", "the application")
    if wrong := fault_of(application, name, lambda name: f"serve({name})"):
        raise ApplicationError(*wrong)


def _is_file(place: str) -> bool:
    # `mysite.wsgi` is the module of every Django project, unless there is such a file.
    # Path.is_file() would raise what is said better where it is run.
    named_wsgi = place.endswith(".wsgi") and os.path.isfile(place)  # noqa: PTH113
    return "/" in place or place.endswith(".py") or named_wsgi


_Arguments = tuple[list[Any], dict[str, Any]]


def _parse(expression: str) -> tuple[list[str], _Arguments | None]:
    """The dotted name, and the arguments if it is called."""
    try:
        node = ast.parse(expression, mode="eval").body
        arguments = None
        if isinstance(node, ast.Call):
            values = [ast.literal_eval(value) for value in node.args]
            named = {str(item.arg): ast.literal_eval(item.value) for item in node.keywords}
            if None in (item.arg for item in node.keywords):
                raise ValueError("** stands for names that are not there")
            arguments = values, named
            node = node.func
    except (SyntaxError, ValueError, TypeError):
        raise ApplicationError(f"{expression!r} {_NEITHER}", _FORMS) from None
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ApplicationError(f"{expression!r} {_NEITHER}", _FORMS)
    return [node.id, *names], arguments


def _refuse_names_of_python(name: str) -> None:
    """A file site.py is never imported: Python has a module of that name already."""
    above = name.partition(".")[0]
    theirs = getattr(sys.modules.get(above), "__file__", None)
    own = Path(sys.path[0], f"{above}.py")
    if above in sys.stdlib_module_names and theirs and own.is_file() and not own.samefile(theirs):
        raise ApplicationError(
            f"{above} is a module of Python itself, which hides {own}",
            f"rename the file, or name it by its path: {own.name}",
        )


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ApplicationError(f"{name!r} is not the name of a module", _FORMS)
    _refuse_names_of_python(name)
    try:
        return guarded(f"importing {name} failed", lambda: importlib.import_module(name))
    except ApplicationError as error:
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError) or _users_part(cause.__traceback__):
            raise
        # Not an import in the user's code has failed, but ours of the module itself.
        missing = str(cause.name)
        if name.endswith(".wsgi") and missing != name:
            raise ApplicationError(
                f"there is neither a file {Path(name).absolute()} nor a module {missing!r}",
                "check the path; --chdir changes the folder it is looked for in",
            ) from None
        above, _, last = missing.rpartition(".")
        if above in sys.modules:
            near = f"did you mean '{above}:{last}'? "
        else:
            near = _nearest(missing, [item.name for item in pkgutil.iter_modules(sys.path[:1])])
        raise ApplicationError(
            f"there is no module {missing!r}",
            f"{near}looked in {sys.path[0]} (--chdir changes it), --pythonpath and the installed "
            "packages",
        ) from None


def _run_file(path: str) -> ModuleType:
    file = Path(path).expanduser().absolute()
    try:
        is_folder, is_there = file.is_dir(), file.is_file()
    except OSError as error:  # the user of the workers may be another than who has tried it
        remedy = "let the user of the workers (--user) enter each folder on the way, and read it"
        raise ApplicationError(f"{file}: {error.strerror}", remedy) from error
    if is_folder:
        remedy = f"give the script; a folder whose files are to be sent ends with a slash: {path}/"
        raise ApplicationError(f"{file} is a folder", remedy)
    if not is_there:
        remedy = "check the path; --chdir changes the folder it is looked for in"
        if file.with_name(f"{file.name}.py").is_file():
            remedy = f"did you mean {path}.py?"
        raise ApplicationError(f"there is no file {file}", remedy)
    # With a prefix, or json.py would take the place of the standard module.
    name = f"_poolsrv_{file.stem}"
    while name in sys.modules and sys.modules[name].__file__ != str(file):
        name += "_"  # each mount may have its app.wsgi
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    found = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert found is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module

    def run() -> None:
        # Without the bytecode cache, where file.py and file.wsgi would be one.
        exec(loader.source_to_code(file.read_bytes(), str(file)), module.__dict__)

    try:
        guarded(f"running {path} failed", run)
    except ApplicationError as error:
        if isinstance(error.__cause__, SyntaxError | ValueError) and not _is_python(file):
            remedy = (
                f'a script of Python is run here: to send the file as it is, write file = "{path}" '
                "in a [[mount]] of poolsrv.toml"
            )
            raise ApplicationError(error.args[0], remedy) from error.__cause__
        raise
    return module


def _is_python(file: Path) -> bool:
    return file.suffix in (".py", ".wsgi")


def _attribute(module: ModuleType, names: list[str]) -> Any:
    owner = module.__name__
    found: Any = module
    for name in names:
        parent = found
        # A module's __getattr__ or a property runs the user's code.
        found = guarded(f"reading {name} failed", partial(getattr, parent, name, _MISSING))
        if found is _MISSING:
            remedy = _nearest(name, dir(parent)).rstrip() or f"it has {_some(parent)}"
            raise ApplicationError(f"{owner} has no {name!r}", remedy)
        owner = f"{owner}.{name}"
    return found


def _usual(module: ModuleType) -> Any:
    name = _usual_name(module)
    if name:
        return getattr(module, name)
    near = [_nearest(name, dir(module)).rstrip() for name in _USUAL_NAMES]
    remedy = next(filter(None, near), "name the callable behind a colon: module:callable")
    names = " nor ".join(map(repr, _USUAL_NAMES))
    raise ApplicationError(f"there is neither {names} in it", remedy)


def _usual_name(module: ModuleType) -> str:
    return next((name for name in _USUAL_NAMES if hasattr(module, name)), "")


def guarded(what: str, action: Callable[[], T]) -> T:
    """Run the user's code. ApplicationError for anything it raises, an exit included;
    only the operator's own interrupt goes through."""
    try:
        return action()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        shown = traceback.TracebackException(
            type(error), error, _users_part(error.__traceback__), compact=True
        )
        remedy = ""
        if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
            remedy = f"{error.name} is neither in this folder nor installed for {sys.executable}"
        text = f"{what}\n\n{''.join(shown.format()).rstrip()}"
        raise ApplicationError(text, remedy) from error


def _users_part(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith(_IMPORT_SYSTEM):
            return frames
        frames = frames.tb_next
    return None


def _nearest(name: str, names: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]!r}? " if nearest else ""


def _some(owner: object) -> str:
    """The first public names in it."""
    names = [name for name in dir(owner) if not name.startswith("_")]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "no names"
