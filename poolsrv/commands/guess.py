"""What the application of a folder could be, judged by the text of its usual files.

Runs none of them: this is for the message to somebody who has named none.
"""

import re
from collections.abc import Iterator
from pathlib import Path

_USUAL_FILES = ("app.py", "wsgi.py", "application.py", "main.py", "server.py")
_USUAL_NAMES = ("application", "app")
_FACTORIES = ("create_app", "make_app", "create_application")

# Longer files are no starting points.
_LONGEST = 1 << 20


def applications(folder: Path) -> list[str]:
    """What APP may be here, the likeliest first."""
    return list(dict.fromkeys([*_of_django(folder), *_of_files(folder)]))


def _of_django(folder: Path) -> Iterator[str]:
    """The WSGI module of the project that manage.py is for."""
    found = re.search(
        r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", _read(folder / "manage.py")
    )
    package = found[1].partition(".")[0] if found else ""
    if package and (folder / package / "wsgi.py").is_file():
        yield f"{package}.wsgi"


def _of_files(folder: Path) -> Iterator[str]:
    for file in _USUAL_FILES:
        names = _names(_read(folder / file))
        found = [name for name in _USUAL_NAMES if name in names]
        found += [f"{name}()" for name in _FACTORIES if name in names and not found]
        yield from (f"{file.removesuffix('.py')}:{name}" for name in found[:1])


def _names(source: str) -> set[str]:
    """What the module defines at its top, as far as a line can tell."""
    imported = re.findall(r"^from\s.*\bimport\s.*?(\w+)\s*$", source, re.MULTILINE)
    defined = re.findall(r"^(?:def\s+)?(\w+)\s*(?:\(|:[^=\n]*=|=(?!=))", source, re.MULTILINE)
    return {*imported, *defined}


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_LONGEST)
    except OSError:  # there is none, or it is not ours to read
        return ""
