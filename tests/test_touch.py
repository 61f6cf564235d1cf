"""Reload when a file is touched, and how the supervisor hears of files."""

import os
import select
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from poolsrv import _core
from poolsrv.supervisor.touch import LOOK, SETTLES, Touch, is_there
from tests.client import Client
from tests.server import Server

SCRIPT = "def application(environ, start):\n    start('200 OK', [])\n    return [b'{}']\n"


class Watching:
    """A Touch with a clock of its own; `heard` has the names of files that have changed."""

    def __init__(self, *paths: Path) -> None:
        self.watched: list[int] = []
        self.heard: list[str] = []
        self.now = 100.0
        self.touch = Touch(self.watched.append, self.watched.remove)
        for path in paths:
            self.touch.add(path, SETTLES, lambda path=path: self.heard.append(path.name))
        self.touch.begin(self.now)

    def go_on(self, seconds: float) -> list[str]:
        """What is heard when the kernel has said all, and this time has passed."""
        while self.watched and select.select(self.watched, [], [], 0)[0]:
            self.touch.changed(self.now)
        self.now += seconds
        self.touch.tick(self.now)
        heard, self.heard = self.heard, []
        return heard


def replace(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text("new")
    new.replace(path)


def touch_later(path: Path) -> None:
    """Surely another time, however coarse the clock of files."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


CHANGES: list[Callable[[Path], object]] = [
    touch_later,
    replace,
    lambda path: path.write_text("longer than before"),
    Path.unlink,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("inotify", [True, False])
def test_a_change_is_heard_once_it_has_settled(
    change: Callable[[Path], object],
    inotify: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_paths: object) -> int:
        raise OSError

    if not inotify:
        monkeypatch.setattr(_core, "watch_folders", refuse)
    file, other = tmp_path / "a.wsgi", tmp_path / "b.wsgi"
    file.write_text("old")
    other.write_text("old")
    made = Watching(file, other)
    assert bool(made.watched) == inotify
    assert made.go_on(5 * LOOK) == []
    change(file)
    if not inotify:
        assert made.go_on(LOOK) == []
    assert made.go_on(0.0) == []
    assert made.touch.deadline() is not None
    (tmp_path / "unrelated").touch()
    assert made.go_on(SETTLES) == ["a.wsgi"]
    assert made.go_on(5 * LOOK) == []
    made.touch.close()


def test_a_file_that_comes_later(tmp_path: Path) -> None:
    file = tmp_path / "deploy" / "done"
    made = Watching(file)
    file.parent.mkdir()
    assert made.go_on(SETTLES) == []
    file.touch()
    made.go_on(0)
    assert made.go_on(SETTLES) == ["done"]
    shutil.rmtree(file.parent)
    made.go_on(0)
    assert made.go_on(SETTLES) == ["done"]
    file.parent.mkdir()
    made.go_on(0)
    file.touch()
    made.go_on(0)
    assert made.go_on(SETTLES) == ["done"]
    made.touch.close()


def test_a_link_that_is_turned(tmp_path: Path) -> None:
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "site.wsgi").write_text(release)
    current = tmp_path / "current"
    current.symlink_to("1")
    made = Watching(current / "site.wsgi")
    for release in ("2", "1"):
        (tmp_path / "next").symlink_to(release)
        (tmp_path / "next").replace(current)
        made.go_on(0)
        assert made.go_on(SETTLES) == ["site.wsgi"]
        touch_later(tmp_path / release / "site.wsgi")
        made.go_on(0)
        assert made.go_on(SETTLES) == ["site.wsgi"]
    made.touch.close()
    assert made.watched == []


def test_a_folder_that_may_not_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may look everywhere, hence without a real one."""
    file = tmp_path / "down"
    file.touch()
    closed = True
    lstat, stat = Path.is_symlink, Path.stat

    def refuse(act: Callable[..., object]) -> Callable[..., object]:
        def look(path: Path, **options: object) -> object:
            if closed and path == file:
                raise PermissionError
            return act(path, **options)

        return look

    monkeypatch.setattr(Path, "is_symlink", refuse(lstat))
    monkeypatch.setattr(Path, "stat", refuse(stat))
    made = Watching(file)
    assert not is_there(file)
    assert made.watched == []
    closed = False
    made.go_on(LOOK)
    assert is_there(file)
    assert made.go_on(SETTLES) == ["down"]


def test_a_script_is_touched_and_its_server_reloads(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    script, flag = tmp_path / "site.wsgi", tmp_path / "deployed"
    script.write_text(SCRIPT.format("one"))
    made = server(str(script), reload_on_touch=["auto", flag])
    with Client(made.address) as client:
        assert client.get("/").body == b"one"
        script.write_text(SCRIPT.format("two"))
        made.wait_until(lambda: client.get("/").body == b"two")
        assert f"{script} has changed: loading the application anew" in made.log()
        mark = len(made.log())
        flag.touch()
        made.wait_for_log("deployed has changed: loading the application anew", mark)
        made.wait_for_log("POOL2.*ready", mark)
        mark = len(made.log())
        flag.unlink()
        (tmp_path / "other").touch()
        touch_later(script)
        made.wait_for_log("site.wsgi has changed", mark)
        assert "deployed has changed" not in made.log_since(mark)


def test_auto_needs_a_script(tmp_path: Path) -> None:
    from tests.test_scripts import start

    done = start("--reload-on-touch", "auto")
    assert done.returncode == 2
    assert "reload-on-touch auto: no application is a file" in done.stderr
