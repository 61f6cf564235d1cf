"""The server's counters in a form that any release understands: by name, not by place.

A supervisor that leaves its place writes them, the one that follows adds them to what it
counts itself: so no counter that is exported steps back. Fields that the reader does not
know are dropped, buckets that it does not have become the next wider one.
"""

import bisect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from poolsrv import _core
from poolsrv.between.scoreboard import (
    SLOT,
    SUPERVISOR,
    THREAD,
    UPPERS,
    WORKER,
    Field,
    Kind,
    Layout,
    Row,
    Snapshot,
)


def write(snapshot: Snapshot) -> bytes:
    """All counters and histograms of a reading."""
    return json.dumps(
        {
            "uppers": UPPERS,
            "supervisor": _fields(snapshot.supervisor),
            "slots": [
                {
                    "number": slot.number,
                    "slot": _fields(slot.slot),
                    "worker": _fields(slot.worker),
                    "thread": _fields(slot.threads),
                }
                for slot in snapshot.slots
            ],
        }
    ).encode()


def _fields(row: Row) -> dict[str, dict[str, int]]:
    """Each counted field's words that are not 0: by the label's value, or by their index."""
    return {
        field.name: {
            (field.values[index] if field.values else str(index)): word
            for index, word in enumerate(row.all(field.name))
            if word
        }
        for field in row.layout.fields.values()
        if field.kind is not Kind.GAUGE
    }


def carry(board: _core.Scoreboard, text: bytes) -> None:
    """Have `board` begin with these. Raises ValueError, KeyError or TypeError for other text."""
    given: Mapping[str, Any] = json.loads(text)
    uppers = given["uppers"]
    board.carry(SUPERVISOR.place, 0, _words(SUPERVISOR, [given["supervisor"]], uppers))
    last = board.slot_count - 1
    for number in range(board.slot_count):
        # This server may have fewer slots: its last one stands for all that it lacks.
        found = [slot for slot in given["slots"] if min(slot["number"], last) == number]
        for layout in (SLOT, WORKER, THREAD):
            rows = (slot[layout.row] for slot in found)
            board.carry(layout.place, number, _words(layout, rows, uppers))


def _words(
    layout: Layout, rows: Iterable[Mapping[str, Mapping[str, int]]], uppers: list[int]
) -> tuple[int, ...]:
    words = [0] * layout.words
    for row in rows:
        for name, counted in row.items():
            field = layout.fields.get(name)
            if field is None or field.kind is Kind.GAUGE:
                continue
            for key, count in counted.items():
                place = _place(field, key, uppers)
                if place is not None:
                    words[field.index + place] += count
    return tuple(words)


def _place(field: Field, key: str, uppers: list[int]) -> int | None:
    """Which word of the field that is; None if there is none for it."""
    if field.kind is not Kind.HISTOGRAM:
        if not field.values:
            return 0
        return field.values.index(key) if key in field.values else None
    index = int(key)
    if index > len(uppers):  # the sum, behind the count of what is beyond all bounds
        return len(UPPERS) + 1
    return bisect.bisect_left(UPPERS, uppers[index]) if index < len(uppers) else len(UPPERS)
