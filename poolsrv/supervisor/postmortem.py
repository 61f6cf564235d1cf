"""What there is to say of a worker that has ended: one record, with each request inside it.

Supervisor only. Reads the slot's rows before they are settled for the next worker.
"""

import time

from poolsrv import _core
from poolsrv.between.scoreboard import SLOT, THREAD, Row
from poolsrv.log import escape
from poolsrv.supervisor.children import Worker


def served(board: _core.Scoreboard, slot: int) -> int:
    """Requests that workers in this slot have answered, all of them together."""
    return sum(Row(THREAD, board.totals(slot, 0)).all("requests"))


def answered(board: _core.Scoreboard, slot: int) -> int:
    """Those of them that were the application's: files need none."""
    return served(board, slot) - sum(Row(THREAD, board.totals(slot, 0)).all("files"))


def postmortem(
    board: _core.Scoreboard, slot: int, worker: Worker, words: str
) -> tuple[str, dict[str, object]]:
    """The message and its fields; `words` says how it ended. The field `lost` counts requests.

    A line of the message is a request: its paths and methods are the clients' words.
    """
    now = time.monotonic_ns()
    lines = [f"worker {words}"]
    for thread, _, since, ready, *texts in board.current(slot):
        method, path, request_id = (escape(text.decode("latin-1")) for text in texts)
        age, queued = (now - since) / 1e9, max(since - ready, 0) / 1e9
        lines.append(
            f"request was lost with it: {method} {path} id={request_id} age={age:.3f}s "
            f"queued={queued:.3f}s thread={thread}"
        )
    age = (now - Row(SLOT, board.slot(slot))["spawned_at"]) / 1e9
    fields: dict[str, object] = {
        "slot": slot,
        "worker_pid": worker.pid,
        "generation": worker.generation,
        "age": f"{age:.1f}s",
        "served": served(board, slot) - worker.served_before,
        "lost": len(lines) - 1,
    }
    return "\n".join(lines), fields
