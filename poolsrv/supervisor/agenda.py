"""When something is due in which group.

Supervisor only; pure. A server may have hundreds of groups of which a few do anything: a group
is asked only after something has happened to it, and all others cost nothing, nor is their
memory touched, which processes that were forked earlier share.
"""

from collections.abc import Callable


class Agenda:
    """`ask` says when something is due in the group with this number; None: nothing is."""

    def __init__(self, groups: int, ask: Callable[[int], float | None]) -> None:
        self._ask = ask
        self._stirred = set(range(groups))
        self._times: dict[int, float] = {}  # of those that were asked, and have something

    def stir(self, group: int) -> None:
        """Something has happened to it, or will before `next` is called."""
        self._stirred.add(group)

    def next(self) -> float | None:
        """When the first of all is due."""
        for group in self._stirred:
            at = self._ask(group)
            if at is None:
                self._times.pop(group, None)
            else:
                self._times[group] = at
        self._stirred.clear()
        return min(self._times.values(), default=None)

    def due(self, now: float) -> list[int]:
        """The groups that have something due, by what they said last; they are asked again."""
        found = [group for group, at in self._times.items() if at <= now]
        self._stirred.update(found)
        return found
