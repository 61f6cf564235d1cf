"""Waiting for a fact, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

Fact = TypeVar("Fact")


class NotYet(AssertionError):
    """The fact did not come about before its deadline."""


def wait_until(
    condition: Callable[[], Fact | None],
    deadline: float = 60.0,
    *,
    message: Callable[[], str] = lambda: "",
) -> Fact:
    """The first true value of `condition`, asked anew until `deadline` seconds have passed.

    Most facts asked for here (the state of a process, a line in a log, a
    metric) raise no event in this process, so this is the one place of the
    tests that pauses. Raises NotYet with `message()`.
    """
    end = time.monotonic() + deadline
    pause = 0.001
    while not (fact := condition()):
        if time.monotonic() > end:
            raise NotYet(f"not so after {deadline:g} s: {message()}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return fact
