"""The exporter: a process that reads the scoreboard and answers over HTTP.

Metrics for Prometheus, a status page for people, /livez and /readyz for
orchestrators. It writes nothing and can be killed at any time.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """What the scoreboard does not say about the server.

    `started_at` is the supervisor's start in Unix seconds: worked out here it
    would wander with the wall clock. `addresses` are the application's, as a
    person would open them.
    """

    version: str
    application: str
    addresses: tuple[str, ...]
    supervisor_pid: int
    started_at: float


# The descriptors of the scoreboards, by the names of their groups of processes.
Boards = Mapping[str, int]


def run(
    listener: socket.socket, boards: Boards, supervisor_pidfd: int, bell: int, about: About
) -> None:
    """Body of the exporter process; returns when told (END_EXPORTER) or orphaned.

    `listener` is bound and listens (TCP or Unix); `bell` is the eventfd that the
    supervisor's loop empties. The descriptors stay the caller's. Expects a
    process of its own with one thread: it takes over the signals.
    """
    # Not above, where the supervisor would pay for it: prometheus_client costs
    # 100 ms and 143 modules.
    from poolsrv.exporter.main import serve

    serve(listener, boards, supervisor_pidfd, bell, about)


def run_within(
    listener: socket.socket,
    boards: Boards,
    end: int,
    bell: int,
    about: About,
    begun: Callable[[], None],
) -> None:
    """The same as a thread of another process: it ends when the descriptor `end` is readable.

    It calls `begun` when it has all that it needs. `listener` is closed at the end; no signal
    is touched.
    """
    from poolsrv.exporter.main import serve_within

    serve_within(listener, boards, end, bell, about, begun)
