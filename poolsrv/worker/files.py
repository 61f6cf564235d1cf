"""Folders of files, as the core takes them.

Worker. Where they may be named is the settings' business (mounts, sendfile-root);
what is served of them is csrc/worker/found.c's.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Folder:
    """A folder, or a single file, whose path is relative to the working directory."""

    path: str
    is_file: bool = False
    links: str = "inside"  # which symbolic links are followed: folders.h
    index: str = ""
    cache_control: str = ""
    immutable: bool = False
    precompressed: bool = False
    fields: tuple[tuple[str, str], ...] = ()
    types: tuple[tuple[str, str], ...] = ()  # (suffix, type)

    def for_core(
        self,
    ) -> tuple[bytes, bool, str, bytes, bytes, bool, bool, bytes, tuple[tuple[bytes, bytes], ...]]:
        # Not Path.resolve(): where a link leads to may change.
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        return (
            os.fsencode(os.path.abspath(self.path)),  # noqa: PTH100
            self.is_file,
            self.links,
            os.fsencode(self.index),
            self.cache_control.encode(),
            self.immutable,
            self.precompressed,
            lines.encode(),
            tuple((suffix.encode(), kind.encode()) for suffix, kind in self.types),
        )
