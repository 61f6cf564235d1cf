"""The rules of poolsrv's queue, as the server has them: its own C, in a shared library.

`poolsrv/csrc/common/choice.c` and `worker/schedule.c` know no clock and make no
system call, so the model runs them in its own time. Here times are nanoseconds.
"""

import ctypes
import fcntl
import subprocess
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent
_BUILD = _ROOT / "build" / "rules"
# More than a Schedule and a ScheduleMeter take; their insides are the C's.
_SCHEDULE_ROOM, _METER_ROOM = 1024, 64

NONE = 2**32 - 1


class Patience(ctypes.Structure):
    _fields_ = (("times", ctypes.c_uint32), ("most", ctypes.c_uint64))


class View(ctypes.Structure):
    """A worker as the others see it: ChoiceWorker."""

    _fields_ = (
        ("load", ctypes.c_int32),
        ("limit", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("waiting", ctypes.c_int32),
        ("connections", ctypes.c_int32),
        ("rank", ctypes.c_uint64),
        ("slow_rank", ctypes.c_uint64),
    )


@cache
def library() -> ctypes.CDLL:
    """Built when it is first wanted, and again when its sources have changed."""
    _BUILD.mkdir(parents=True, exist_ok=True)
    with (_BUILD / "lock").open("w") as lock:  # tests run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            ["make", "--silent", "-C", _ROOT / "tests" / "c", "rules", f"BUILD={_BUILD}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    rules = ctypes.CDLL(str(_BUILD / "librules.so"))
    u32, u64, i32 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32
    for name, result, arguments in (
        ("choice_delay", u64, [u64, u64, Patience]),
        ("choice_room", i32, [ctypes.POINTER(View)]),
        ("choice_worker", u32, [ctypes.POINTER(View), u32, u32, u32, u64]),
        ("choice_pause", u64, [u64, u32, u64]),
        ("choice_surplus", u32, [u32, u32, u64]),
        ("choice_moving", u32, [u32, u32, u32]),
        ("choice_overdue", u64, [ctypes.POINTER(View), u32]),
        ("choice_excess", u32, [i32, i32, u32]),
        ("rules_mean", u64, [u64, u64]),
        ("rules_tick", u64, []),
        ("rules_sweep", u64, []),
        ("schedule_init", None, [ctypes.c_void_p, i32, i32]),
        ("schedule_runs", ctypes.c_bool, [ctypes.c_void_p, ctypes.c_void_p]),
        (
            "schedule_ran",
            None,
            [ctypes.c_void_p, ctypes.c_void_p, u64, ctypes.c_bool, u64, ctypes.c_long],
        ),
        ("schedule_width", i32, [ctypes.c_void_p, i32]),
        ("schedule_limit", i32, [ctypes.c_void_p, i32]),
    ):
        function = getattr(rules, name)
        function.restype, function.argtypes = result, arguments
    return rules


class Schedule:
    """A worker's, on a build without a GIL: what hinders threads is the model's."""

    def __init__(self, threads: int) -> None:
        self._rules = library()
        self._schedule = ctypes.create_string_buffer(_SCHEDULE_ROOM)
        self._meter = ctypes.create_string_buffer(_METER_ROOM)
        self._rules.schedule_init(self._schedule, threads, threads)

    def ran(self, nanoseconds: int) -> None:
        self._rules.schedule_runs(self._schedule, self._meter)
        self._rules.schedule_ran(self._schedule, self._meter, nanoseconds, False, 0, 0)

    def width(self, stuck: int) -> int:
        return int(self._rules.schedule_width(self._schedule, stuck))

    def limit(self, stuck: int) -> int:
        return int(self._rules.schedule_limit(self._schedule, stuck))
