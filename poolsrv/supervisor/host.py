"""What a group of processes needs of the server that it belongs to.

Supervisor only.
"""

from collections.abc import Callable
from typing import Protocol

from poolsrv.supervisor.actions import ReloadFailed, TookOver
from poolsrv.supervisor.memory import OutOfMemory


class Host(Protocol):
    """The server that a group belongs to."""

    out_of_memory: OutOfMemory
    zombies: bool

    @property
    def now(self) -> float:
        """Of the event at hand."""

    @property
    def failed(self) -> bool:
        """The server does not start, and has said why."""

    def guarded(self, act: Callable[..., None], *arguments: object) -> None:
        """Have an exception in `act` said, and go on."""

    def happened(self, event: tuple[object, ...]) -> None:
        """Of what a dispatcher says."""

    def watch(self, fd: int, hear: Callable[[], None]) -> None:
        """Call `hear` when the descriptor is readable."""

    def unwatch(self, fd: int) -> None: ...

    def stir(self, group: int) -> None:
        """Something happens to the group with this number: ask when it is due."""

    def reload_begins(self) -> None: ...

    def reload_ends(self, group: int, action: TookOver | ReloadFailed) -> None: ...
