"""What clients of the control socket wait for, and the events that they may ask for.

Supervisor only.
"""

import collections
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poolsrv.between.control import Answer
from poolsrv.log import code_of
from poolsrv.supervisor.actions import ReloadFailed, TookOver

_EVENTS = 200


class Events(logging.Handler):
    """The last records of this process, for `poolsrv events`."""

    def __init__(self) -> None:
        super().__init__()
        self.records: collections.deque[Mapping[str, object]] = collections.deque(maxlen=_EVENTS)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(
            {
                "time": record.created,
                "level": record.levelname.lower(),
                **({"code": code} if (code := code_of(record)) else {}),
                "message": record.getMessage(),
                **getattr(record, "fields", {}),
            }
        )


@dataclass(frozen=True, slots=True)
class Order:
    """What a client has asked for, and waits for. `outcome` is None until it is there."""

    facts: Mapping[str, Any]
    outcome: Callable[[], Answer | None]


@dataclass(slots=True)
class Reloads:
    """Those that a client waits for: of each group, the first generation that will do."""

    missing: dict[int, int]
    generation: int = 0
    failures: list[str] = field(default_factory=list)

    def ended(
        self, group: int, action: TookOver | ReloadFailed, names: Sequence[str]
    ) -> Answer | None:
        """The answer, if this was the last one."""
        if group not in self.missing or action.generation < self.missing[group]:
            return None
        del self.missing[group]
        self.generation = max(self.generation, action.generation)
        if isinstance(action, ReloadFailed):
            name = f"group {names[group]}: " if len(names) > 1 else ""
            self.failures.append(f"{name}{action.text}")
        if self.missing:
            return None
        if self.failures:
            return Answer(error="\n".join(self.failures))
        return Answer({"generation": self.generation})
