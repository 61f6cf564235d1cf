"""Files that tell the server something: touched, there, or gone.

Supervisor only. What has changed is judged by stat, so that it does not matter how: written,
replaced, touched, or reached by a link that was turned. The kernel says when to look (inotify
on folders, for a file may come and go); where it cannot, as on NFS, we look once a second.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from poolsrv import _core
from poolsrv.errors import ConfigError
from poolsrv.settings.mounts import applications
from poolsrv.settings.rows import Settings

# Who writes a file writes it in several steps, and a deploy several files.
SETTLES = 0.2

# Without inotify.
LOOK = 1.0

# inotify(7): its folder, what, cookie, size of the name behind; and what ends a watch or leaves
# it with a folder that has another name (IN_IGNORED, IN_MOVE_SELF, IN_Q_OVERFLOW).
_EVENT = struct.Struct("iIII")
_LOST = 0x8000 | 0x800 | 0x4000

# What tells one state of a file from another; None: it is not there.
_Mark = tuple[int, ...] | None


def touched_files(settings: Settings, folder: str) -> list[Path]:
    """The files of --reload-on-touch. Raises ConfigError."""
    found = []
    for name in settings.reload_on_touch:
        if name != "auto":
            found.append(Path(folder, name))
            continue
        base = Path(folder, settings.chdir or "")
        specs = applications(settings.own_mounts())
        scripts = [base / spec.partition(":")[0] for spec in specs if spec]
        if not any(script.is_file() for script in scripts):
            raise ConfigError(
                "reload-on-touch auto: no application is a file",
                "name the file to touch: --reload-on-touch FILE",
            )
        found += [script for script in scripts if script.is_file()]
    return found


@dataclass(slots=True)
class _File:
    path: Path
    delay: float
    react: Callable[[], None]
    mark: _Mark = None
    due: float | None = None  # when to react


@dataclass(slots=True)
class Touch:
    """`watch` and `unwatch` have the supervisor wait for a descriptor of ours."""

    watch: Callable[[int], None]
    unwatch: Callable[[int], None]
    _files: list[_File] = field(default_factory=list)
    _inotify: int = -1
    _folders: frozenset[Path] = frozenset()
    _look_at: float | None = None

    def add(self, path: Path, delay: float, react: Callable[[], None]) -> None:
        """Call `react` when the file has changed, and then not for `delay` seconds."""
        self._files.append(_File(path, delay, react, _mark(path)))

    def begin(self, now: float) -> None:
        """Wait for changes of all that were added."""
        try:
            folders = frozenset(found for file in self._files for found in _folders(file.path))
            if folders == self._folders and self._inotify >= 0:
                return
            self.close()
            self._folders = folders
            self._look_at = None
            self._inotify = _core.watch_folders([os.fsencode(folder) for folder in folders])
        except OSError:  # a folder that we may not look into, or no watch is left
            self.close()
            self._look_at = now + LOOK
        else:
            self.watch(self._inotify)

    def close(self) -> None:
        """Wait for nothing more."""
        if self._inotify >= 0:
            self.unwatch(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    def close_in_child(self) -> None:
        """In a child just forked: what the supervisor waits for stays as it is."""
        if self._inotify >= 0:
            os.close(self._inotify)

    def changed(self, now: float) -> None:
        """The kernel has said something: look what it was."""
        try:
            said = os.read(self._inotify, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(said):
            _, mask, _, size = _EVENT.unpack_from(said, at)
            at += _EVENT.size + size
            if mask & _LOST:  # another folder may have its name by now
                self._folders = frozenset()
        self._look(now)

    def deadline(self) -> float | None:
        """When `tick` should be called next."""
        times = [self._look_at, *(file.due for file in self._files)]
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> None:
        """Look, if it is time, and react to what has settled."""
        if self._look_at is not None and now >= self._look_at:
            self._look_at = now + LOOK
            self._look(now)
        for file in self._files:
            if file.due is not None and now >= file.due:
                file.due = None
                file.react()

    def _look(self, now: float) -> None:
        for file in self._files:
            mark = _mark(file.path)
            if mark != file.mark:
                file.mark = mark
                file.due = now + file.delay
        if self._look_at is None:
            self.begin(now)  # a link may lead elsewhere now


def is_there(path: Path) -> bool:
    """What cannot be looked at is not."""
    return _mark(path) is not None


def _mark(path: Path) -> _Mark:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size


def _folders(path: Path) -> set[Path]:
    """Those in which a name on the way to this file may change; such as exist."""
    found = {place.parent for place in [path, *path.parents] if place.is_symlink()}
    found |= {path.parent, path.resolve().parent}
    # What is not there yet comes to the nearest folder that is.
    return {next(up for up in [folder, *folder.parents] if up.is_dir()) for folder in found}
