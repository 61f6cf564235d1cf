"""`poolsrv.shared`: a counter, a flag and a lock that all workers of a server have in common.

They are known by name, live in memory as long as the server, through reloads, recycled
workers and upgrades, and are gone with it. Outside of a server they are shared by this
process and those that it forks: code that uses them can be tested as it is. There is room
for 1024 names of up to 200 bytes.

Nothing here outlives the machine or spans two of them: that is a database's work.
"""

import enum
import errno
import logging
import os
from typing import TYPE_CHECKING, Self

from poolsrv import _core
from poolsrv import operator_messages as say

_log = logging.getLogger("poolsrv")

_NUMBER, _LOCK = 1, 2  # SharedKind of csrc/common/shared.h


class _Place:
    table: _core.SharedTable | None = None
    fd = -1


def make() -> int:
    """A new table, for a server that starts."""
    fd = _core.shared_create()
    _core.SharedTable(fd)  # it is of a form that we know
    return fd


def attach(fd: int) -> None:
    """In a worker or a template: this is the server's."""
    if _Place.fd != fd:
        _Place.table, _Place.fd = _core.SharedTable(fd), fd


def _table() -> _core.SharedTable:
    if _Place.table is None:
        fd = _core.shared_create()
        _Place.table = _core.SharedTable(fd)
        os.close(fd)  # the mapping stays
    return _Place.table


def _find(kind: int, name: str) -> tuple[_core.SharedTable, int]:
    table = _table()
    try:
        return table, table.find(kind, name.encode())
    except OSError as error:
        reasons = {
            errno.EEXIST: f"{name!r} is the name of a lock and of something else",
            errno.ENOSPC: "all names are taken; shared is not for names that never end",
            errno.EINVAL: "a name has 1 to 200 bytes",
        }
        raise ValueError(reasons.get(error.errno or 0, str(error))) from None


class Counter:
    """A whole number, 0 at first; every change is atomic. Beyond 63 bits it wraps around."""

    def __init__(self, name: str) -> None:
        """Raises ValueError for a name that cannot be one."""
        self._table, self._index = _find(_NUMBER, name)

    def add(self, more: int = 1) -> int:
        """Its value then."""
        return self._table.add(self._index, more)

    def set(self, value: int) -> int:
        """Its value before."""
        return self._table.exchange(self._index, value)

    @property
    def value(self) -> int:
        return self._table.add(self._index, 0)


class Flag:
    """Set or not; not at first. A Counter of the same name is the same number."""

    def __init__(self, name: str) -> None:
        """Raises ValueError for a name that cannot be one."""
        self._table, self._index = _find(_NUMBER, name)

    def set(self) -> bool:
        """True for the one who has set it: it was not set before."""
        return self._table.exchange(self._index, 1) == 0

    def clear(self) -> bool:
        """True for the one who has cleared it."""
        return self._table.exchange(self._index, 0) != 0

    def __bool__(self) -> bool:
        return self._table.add(self._index, 0) != 0


class Outcome(enum.IntEnum):
    """What became of `Lock.acquire`: true if the lock is ours."""

    TIMED_OUT = 0
    ACQUIRED = 1
    OWNER_DIED = 2  # it is ours, and its last owner has ended with it: what it did may be half


_OUTCOMES = tuple(Outcome)


class Lock(_core.SharedLock):
    """At most one thread of all workers has it. It is not one to be taken twice.

    Whoever ends with it, thread or process, however it ends, gives it back, and the next
    owner is told:

        with poolsrv.shared.Lock("index") as outcome:
            if outcome is Outcome.OWNER_DIED:
                rebuild()

    A child that is forked meanwhile does not have it. A request that is ended by its time
    limit leaves the `with` block as by any exception.
    """

    def __new__(cls, name: str) -> Self:
        """Raises ValueError for a name that cannot be one."""
        self = super().__new__(cls, *_find(_LOCK, name))
        self._name = name
        return self

    if TYPE_CHECKING:
        # What _core.SharedLock has: in C, so that no time limit can strike between
        # having the lock and being in the `with` block.
        _name: str

        def acquire(self, timeout: float | None = None) -> Outcome: ...
        def __enter__(self) -> Outcome: ...

    def _look_up(self) -> None:
        """It waits. If there is something to raise, Python does it here."""

    def _told(self, outcome: int) -> Outcome:
        """What the caller is told; if this raises, it does not have the lock."""
        if outcome == Outcome.OWNER_DIED:
            _log.warning(say.LOCK_OWNER_DIED, self._name)
        return _OUTCOMES[outcome]
