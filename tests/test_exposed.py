"""Folders that give away more than was meant."""

from pathlib import Path

import pytest

from poolsrv.settings.exposed import exposed
from poolsrv.settings.sources import from_options
from tests.server import ROOT, serving
from tests.test_mounts import check


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A checkout that holds an application, its files and what it gives away."""
    for name in ("shop", "shop/public", "shop/.git", "home", "private"):
        (tmp_path / name).mkdir()
    (tmp_path / "shop" / "shop.wsgi").write_text("from tests.apps.hello import app as application")
    return tmp_path


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("/", "it holds the folders of others"),
        ("/home", "it holds the folders of others"),
        ("/etc", "the system keeps its own files there"),
        ("/etc/ssl", "the system keeps its own files there"),
        ("home", "it is a home, where keys and histories lie"),
        ("shop", "the application's own code is in it, in "),
        (".", "the application's own code is in it, in "),
        ("shop/public/..", "the application's own code is in it, in "),
        ("shop/public", None),
        ("private", None),
        ("/srv", None),
        ("none", None),
    ],
)
def test_what_gives_away_too_much(
    site: Path, monkeypatch: pytest.MonkeyPatch, root: str, words: str | None
) -> None:
    monkeypatch.setenv("HOME", str(site / "home"))
    for options in (
        {"sendfile_root": root},
        {"mount": [{"path": "/files", "folder": root}]},
        {"mount": [{"path": "/", "folder": root}]},
    ):
        settings = from_options(
            application=f"{site}/shop/shop.wsgi", chdir=str(site), config=None, **options
        )
        found = list(exposed(settings, "/nowhere"))
        assert len(found) == (words is not None), found
        if words is not None:
            assert words in found[0]
            assert found[0].endswith("name a folder that holds nothing but files for clients")


def test_the_code_of_a_module_is_where_it_is_looked_for(site: Path) -> None:
    def found(**options: object) -> list[str]:
        return list(exposed(from_options(config=None, **options), str(site / "home")))

    root = str(site)
    assert found(application="shop:app", sendfile_root=root)
    assert found(application="shop:app", sendfile_root=f"{site}/home")
    assert not found(application="shop:app", sendfile_root=f"{site}/private")
    assert found(
        application="shop:app", sendfile_root=f"{site}/private", pythonpath=f"{site}/private/lib"
    )
    # Without an application there is no code.
    assert not found(mount=[{"path": "/", "folder": root}])


def test_each_group_has_its_own_code(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "poolsrv.toml"
    file.write_text("""
[group.shop]
application = "shop:app"
chdir = "shop"
[[mount]]
path = "/files"
folder = "."
[[mount]]
path = "/public"
folder = "/srv"
""")
    (line,) = exposed(from_options(config=str(file)), str(site))
    assert line.startswith("mount /files of .: the application's own code is in it, in ")


def test_what_cannot_be_looked_at_stops_nobody(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "loop").symlink_to("loop")
    options = {"application": f"{site}/shop/shop.wsgi", "chdir": str(site), "config": None}
    assert not list(exposed(from_options(sendfile_root="loop", **options), "/"))

    def refuse(_path: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "is_file", refuse)
    assert not list(exposed(from_options(sendfile_root=f"{site}/private", **options), "/"))


def test_a_history(site: Path) -> None:
    """A mount gives nobody a name with a dot, but an application may."""
    (site / "private" / ".git").mkdir()
    options = {"application": f"{site}/shop/shop.wsgi", "chdir": str(site), "config": None}
    path = f"{site}/private"
    (line,) = exposed(from_options(sendfile_root=path, **options), "/")
    assert "the history of its changes is in it, in .git" in line
    assert not list(exposed(from_options(mount=f"/files={path}/", **options), "/"))


@pytest.mark.parametrize("processes", [0, 1])
def test_it_is_said_at_the_start(site: Path, processes: int) -> None:
    script = site / "shop" / "shop.wsgi"
    options = {"processes": processes, "sendfile_root": "/etc"}
    with serving(str(script), site, **options) as server:
        server.wait_for_log("POOL116 --sendfile-root /etc: the system keeps its own files")


def test_check_says_it_and_names_what_touch_would_watch(site: Path) -> None:
    options = ["--reload-on-touch", "auto", "--mount", "/=./shop/", "--pythonpath", str(ROOT)]
    done = check(site, "shop/shop.wsgi", *options)
    assert done.returncode == 0, done.stderr
    valid, touched, warning = done.stdout.splitlines()
    assert valid.endswith("are WSGI applications, and the options are valid")
    assert touched == f"a reload follows when this file is touched: {site}/shop/shop.wsgi"
    assert warning.startswith("warning: mount / of ./shop/: the application's own code is in it")
