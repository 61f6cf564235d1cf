"""What APP may be, and what the user reads when it cannot be loaded."""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolsrv.errors import ApplicationError, ConfigError
from poolsrv.settings.rows import Settings
from poolsrv.worker.loader import load, prepare, release

SOURCE = """
def application(environ, start_response):
    return [b"application"]

def app(environ, start_response):
    return [b"app"]

class Shop:
    app = application

def create(*args, **kwargs):
    def made(environ, start_response):
        return [repr((args, kwargs)).encode()]
    return made

def nothing():
    return None

name = "text"
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of a test are in its folder and are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    Path("shop.py").write_text(SOURCE)
    prepare(Settings())
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def answer(spec: str) -> bytes:
    (body,) = load(spec)({}, None)
    assert isinstance(body, bytes)
    return body


def failure(spec: str) -> str:
    with pytest.raises(ApplicationError) as caught:
        load(spec)
    assert caught.value.status == 3
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("shop", b"application"),
        ("shop:app", b"app"),
        ("shop:Shop.app", b"application"),
        ("shop:create()", b"((), {})"),
        ("shop:create(1, 'a:b', key=[None])", b"((1, 'a:b'), {'key': [None]})"),
        ("shop.py", b"application"),
        ("./shop.py:app", b"app"),
    ],
)
def test_forms(spec: str, expected: bytes) -> None:
    assert answer(spec) == expected


def test_app_is_found_where_there_is_no_application() -> None:
    Path("small.py").write_text("def app(environ, start_response): return [b'small']")
    assert answer("small") == b"small"


def test_a_script_file_and_a_module_of_one_name_are_two() -> None:
    folder = Path("scripts")
    folder.mkdir()
    (folder / "json.wsgi").write_text("def application(*_): return [__file__.encode()]")
    (folder / "json.py").write_text("def application(*_): return [b'module']")
    assert answer("scripts/json.wsgi") == str(folder.absolute() / "json.wsgi").encode()
    assert answer("scripts/json.py") == b"module"
    assert sys.modules["json"].__name__ == "json"


def test_a_package() -> None:
    Path("site_shop").mkdir()
    Path("site_shop/__init__.py").write_text("")
    Path("site_shop/wsgi.py").write_text("from shop import app as application")
    assert answer("site_shop.wsgi") == b"app"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("shp", "there is no module 'shp'\n  did you mean 'shop'?"),
        ("shop.wsgi2", "there is no module 'shop.wsgi2'"),
        ("shop:aplication", "shop has no 'aplication'\n  did you mean 'application'?"),
        ("shop:Shop.ap", "shop.Shop has no 'ap'\n  did you mean 'app'?"),
        ("shop.app", "there is no module 'shop.app'\n  did you mean 'shop:app'?"),
        ("./shop", "/shop\n  did you mean ./shop.py?"),
        ("shop:name", "name is a str, no callable"),
        ("shop:nothing()", "nothing() is None, no callable"),
        ("shop:create(x)", "'create(x)' is neither a name nor a call"),
        ("shop:create(**{})", "'create(**{})' is neither a name nor a call"),
        ("shop:1", "'1' is neither a name nor a call"),
        ("my-shop:app", "'my-shop' is not the name of a module"),
        ("nowhere.py", "there is no file "),
        ("", "'' is not the name of a module"),
    ],
)
def test_what_is_not_there_is_named_without_a_traceback(spec: str, words: str) -> None:
    message = failure(spec)
    assert message.startswith(f"{spec!r} cannot be loaded: ")
    assert words in message
    assert "Traceback" not in message


def test_neither_of_the_usual_names() -> None:
    Path("near.py").write_text("aplication = 1")
    assert "neither 'application' nor 'app' in it\n  did you mean 'aplication'?" in failure("near")


@pytest.mark.parametrize("spec", ["broken", "broken.py"])
@pytest.mark.parametrize(
    ("source", "last"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import shopp", "  shopp is neither in this folder nor installed for "),
        ("import broken.inner", "ModuleNotFoundError: No module named 'broken.inner'"),
        ("raise BaseException('all')", "BaseException: all"),
    ],
)
def test_the_traceback_is_the_users_own(spec: str, source: str, last: str) -> None:
    Path("broken.py").write_text(f"# one\n{source}\n")
    message = failure(spec)
    lines = message.splitlines()
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[3].strip() == f'File "{Path("broken.py").absolute()}", line 2, in <module>'
    assert lines[-1].startswith(last)
    assert "loader.py" not in message
    assert "importlib" not in message


def test_a_syntax_error_shows_its_line() -> None:
    Path("broken.py").write_text("x = (1\n")
    message = failure("broken")
    assert f'File "{Path("broken.py").absolute()}", line 1' in message
    assert "    x = (1" in message
    assert "SyntaxError: '(' was never closed" in message
    assert "loader.py" not in message


def test_a_folder_is_no_script() -> None:
    Path("static").mkdir()
    message = failure("./static")
    assert f"{Path('static').absolute()} is a folder\n" in message
    assert message.endswith("ends with a slash: ./static/")


@pytest.mark.parametrize("content", [b"User-agent: *\nDisallow:\n", b"\x89PNG\0"])
def test_a_file_that_is_no_script_is_to_be_sent(content: bytes) -> None:
    Path("robots.txt").write_bytes(content)
    assert 'write file = "./robots.txt" in a [[mount]]' in failure("./robots.txt")
    Path("robots.py").write_bytes(content)
    assert "[[mount]]" not in failure("./robots.py")


def test_a_factory_that_fails() -> None:
    Path("factory.py").write_text("def create():\n    raise RuntimeError('no database')\n")
    message = failure("factory:create()")
    assert "calling create() failed" in message
    assert "in create\n" in message
    assert message.endswith("RuntimeError: no database")


def test_an_interrupt_is_the_operators() -> None:
    Path("slow.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load("slow")


def test_prepare_puts_the_folder_first_then_the_paths() -> None:
    Path("site/lib").mkdir(parents=True)
    start = Path.cwd()
    prepare(Settings(chdir="site", pythonpath=("lib", str(start))))
    assert Path.cwd() == start / "site"
    assert sys.path[:3] == [str(start / "site"), str(start / "site/lib"), str(start)]


def test_the_release_of_a_generation_is_left_only_when_it_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    link = tmp_path / "current"
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link.symlink_to("old")
    settings = Settings(chdir=str(link))
    pinned = release(settings)
    link.unlink()
    link.symlink_to("new")
    prepare(settings, None, pinned)
    assert Path.cwd().name == "old"
    (tmp_path / "old").rmdir()
    prepare(settings, str(tmp_path), pinned)
    assert Path.cwd().name == "new"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(chdir="nowhere"), "chdir: nowhere: No such file or directory"),
        (Settings(pythonpath=("nowhere",)), "nowhere is not a folder"),
    ],
)
def test_prepare_refuses_folders_that_are_not_there(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(settings)


def test_a_script_that_the_user_may_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has tried it was another user, as a rule."""

    def refuse(self: Path, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ApplicationError) as caught:
        load("/root/secret.wsgi")
    fault, remedy = caught.value.args
    assert fault.endswith("/root/secret.wsgi: Permission denied")
    assert "--user" in remedy
