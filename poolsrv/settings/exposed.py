"""Folders that give away more than was meant.

A mount gives what is in its folder to everybody, and a folder of --sendfile-root what the
application names, perhaps by a name that a client has sent. What lies there is looked at once, at
the start; nothing is refused.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from poolsrv.settings.groups import groups_of
from poolsrv.settings.mounts import applications
from poolsrv.settings.rows import Settings

# Where the system keeps what is its own, and nobody's files to download.
_SYSTEM = ("/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys")

# Folders that hold folders of many owners.
_SHARED = ("/", "/bin", "/home", "/lib", "/media", "/mnt", "/opt", "/sbin", "/tmp", "/usr", "/var")

_HISTORIES = (".git", ".hg", ".svn")


def exposed(settings: Settings, folder: str, called: bool = False) -> Iterator[str]:
    """A line for each: what is given away, and what to do.

    `folder` is where the server starts; `called`: a program gives the callable that is at /.
    """
    groups = [group.settings for group in groups_of(settings, called)]
    code = [place for group in groups for place in _code(group, _base(group, folder))]
    homes = _homes(groups)
    yield from dict.fromkeys(
        line for group in groups for line in _lines(group, _base(group, folder), code, homes)
    )


def _lines(group: Settings, base: Path, code: list[Path], homes: list[Path]) -> Iterator[str]:
    for root in group.sendfile_root:
        place = _real(base, root)
        if why := _reason(place, code, homes) or _history(place):
            yield f"--sendfile-root {root}: {why}: {_REMEDY}"
    for mount in group.all_mounts():
        if mount.files and not mount.files.is_file:
            path = mount.files.path
            if why := _reason(_real(base, path), code, homes):
                yield f"mount {mount.host}{mount.path} of {path}: {why}: {_REMEDY}"


_REMEDY = "name a folder that holds nothing but files for clients"


def _base(group: Settings, folder: str) -> Path:
    return Path(folder, group.chdir or "")


# What cannot be looked at, or leads in a circle, is the worker's to say: here it is nothing.


def _real(base: Path, path: str) -> Path:
    return Path(os.path.realpath(Path(base, path)))


def _is_file(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file()
    return False


def _exists(path: Path) -> bool:
    with suppress(OSError):
        return path.exists()
    return False


def _code(group: Settings, base: Path) -> list[Path]:
    """Where the code of the applications is looked for."""
    specs = [spec.partition(":")[0] for spec in applications(group.own_mounts())]
    scripts = [_real(base, spec).parent for spec in specs if spec and _is_file(Path(base, spec))]
    modules = [_real(base, "")] if len(specs) > len(scripts) else []
    return [*scripts, *modules, *(_real(base, path) for path in group.pythonpath)]


def _reason(place: Path, code: list[Path], homes: list[Path]) -> str | None:
    if str(place) in _SHARED:
        return "it holds the folders of others"
    if any(place.is_relative_to(system) for system in _SYSTEM):
        return "the system keeps its own files there"
    if place in homes:
        return "it is a home, where keys and histories lie"
    inside = next((folder for folder in code if folder.is_relative_to(place)), None)
    return None if inside is None else f"the application's own code is in it, in {inside}"


def _homes(groups: list[Settings]) -> list[Path]:
    found = []
    # Users may be numbers that have no name, as in containers.
    with suppress(RuntimeError):
        found.append(Path.home())
    for user in {group.user.uid for group in groups if group.user is not None}:
        with suppress(KeyError):
            found.append(Path(pwd.getpwuid(user).pw_dir))
    return [_real(home, "") for home in found]


def _history(place: Path) -> str | None:
    """The core gives nobody a name with a dot from a mount, but what the application names."""
    name = next((name for name in _HISTORIES if _exists(place / name)), None)
    return None if name is None else f"the history of its changes is in it, in {name}"
