"""Interpreters of a worker: which application is in which.

Number 1 is the one that the process began with; the others are made beside it, each with
a lock of its own. An application is in each of them, unless its mount names one.
"""

import sys
from collections.abc import Sequence

from poolsrv.errors import ConfigError
from poolsrv.settings.mounts import Mount, applications

# Before it, half of the standard library's extensions refuse a lock of one's own.
OLDEST_PYTHON = (3, 13)

MOST_INTERPRETERS = 64  # INTERPRETERS_MOST of csrc/worker/worker.h


def homes(mounts: Sequence[Mount]) -> tuple[int, ...]:
    """For each of `applications` the only interpreter that has it, or 0."""
    return tuple(
        max(mount.interpreter for mount in mounts if mount.application == application)
        for application in applications(mounts)
    )


def check_interpreters(
    interpreters: int, threads: int, processes: int, mounts: Sequence[Mount]
) -> None:
    """Raises ConfigError for what cannot be had, with the reason."""
    _check_mounts(interpreters, mounts)
    if interpreters == 1:
        return
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ConfigError(
            f"interpreters: in Python {version} half of the standard library's extensions refuse "
            "an interpreter with a lock of its own, or end the process",
            "run poolsrv with Python 3.13 or newer, or serve with more --processes instead",
        )
    if not processes:
        raise ConfigError(
            "interpreters: with processes 0 the server is a part of one interpreter",
            "leave one of them out",
        )
    if threads < interpreters:
        raise ConfigError(
            f"interpreters: {interpreters} of them have {threads} threads, and each needs one at "
            "least",
            f"give --threads {interpreters} or more",
        )


def _check_mounts(interpreters: int, mounts: Sequence[Mount]) -> None:
    found: dict[str, int] = {}
    for mount in mounts:
        if not mount.has_application:
            continue
        if mount.interpreter > interpreters:
            raise ConfigError(
                f"mount: {mount.host}{mount.path} is in interpreter {mount.interpreter}, and there "
                f"{'is one' if interpreters == 1 else f'are {interpreters}'}",
                f"give interpreters = {mount.interpreter}, or a lower number there",
            )
        number = found.setdefault(mount.application, mount.interpreter)
        if number != mount.interpreter:
            raise ConfigError(
                f"mount: {mount.application} is mounted twice, in two interpreters",
                "write the same interpreter into both mounts, or none into either",
            )
