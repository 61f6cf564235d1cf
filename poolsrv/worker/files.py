"""Folders of files, as the core takes them.

Worker. What is served of them is csrc/worker/found.c's business.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from poolsrv import operator_messages as say
from poolsrv.settings.files import Files

_log = logging.getLogger("poolsrv")

CoreFolder: TypeAlias = tuple[
    bytes, bool, str, bytes, bytes, bytes, bool, bytes, tuple[tuple[bytes, bytes], ...]
]


def core_folders(found: Sequence[Files]) -> tuple[CoreFolder, ...]:
    """What the core takes as `folders`. One that is not there is said to the log."""
    return tuple(map(_folder, found))


def _folder(files: Files) -> CoreFolder:
    # Not Path.resolve(): where a link leads to may change.
    path = Path(os.path.abspath(files.path))  # noqa: PTH100
    if not (path.is_file() if files.is_file else path.is_dir()):
        _log.warning(say.FILES_MISSING, path)
    lines = "".join(f"{name}: {value}\r\n" for name, value in files.headers)
    return (
        os.fsencode(path),
        files.is_file,
        files.links,
        os.fsencode(files.index),
        files.cache_control.encode(),
        files.forever.encode(),
        files.precompressed,
        lines.encode(),
        tuple((suffix.encode(), kind.encode()) for suffix, kind in files.types),
    )
