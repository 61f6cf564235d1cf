"""What servers are asked to do: one row for each workload."""

from dataclasses import dataclass
from typing import NamedTuple

from loadtests._bench import _apps


class Shape(NamedTuple):
    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes}x{self.threads}"

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """`2x4`; ValueError for anything else."""
        processes, times, threads = text.partition("x")
        if not (times and processes.isdecimal() and threads.isdecimal()):
            raise ValueError(f"{text!r} is not PROCESSESxTHREADS, such as 2x4")
        return cls(int(processes), int(threads))


@dataclass(frozen=True)
class Workload:
    """`blocks`: seconds that a request sleeps on average, so that no pool can
    answer more than threads / blocks requests a second. `idle`: connections that are
    held open beside the busy ones. `new`: connections at a time, of one request
    each, beside those that are kept alive. `about`: the class of requests whose
    latency counts, where they are told apart. `needs`: a module to install."""

    name: str
    app: str  # module:callable
    connections: int
    shapes: tuple[Shape, ...]
    shows: str
    script: str = "report.lua"
    close: bool = False
    idle: int = 0
    new: int = 0
    blocks: float = 0.0
    about: str = ""
    needs: str | None = None

    @property
    def module(self) -> str:
        return self.app.partition(":")[0]

    @property
    def callable(self) -> str:
        return self.app.partition(":")[2]

    def ideal(self, shape: Shape) -> float | None:
        """Requests per second of threads that do nothing but sleep; None if they compute."""
        return shape.processes * shape.threads / self.blocks if self.blocks else None


_ONE, _FOUR = Shape(1, 1), Shape(2, 4)
_APPS = _apps.__name__

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("hello", f"{_APPS}:hello", 64, (_ONE, _FOUR), "hello, keep-alive"),
        Workload(
            "close", f"{_APPS}:hello", 64, (_ONE, _FOUR), "hello, a connection for each", close=True
        ),
        Workload("many", f"{_APPS}:hello", 512, (_FOUR,), "hello, on 512 connections"),
        Workload(
            "flask",
            "loadtests._bench._flask:page",
            64,
            (_ONE, _FOUR),
            "a Flask page of 2 kB",
            needs="flask",
        ),
        Workload("json", f"{_APPS}:document", 64, (_FOUR,), "1 kB of JSON"),
        Workload(
            "upload", f"{_APPS}:upload", 16, (_FOUR,), "a body of 64 KiB", script="upload.lua"
        ),
        Workload("stream", f"{_APPS}:stream", 16, (_FOUR,), "100 KiB in pieces of 1 KiB"),
        Workload("file", f"{_APPS}:file", 8, (_FOUR,), "a file of 1 MiB"),
        Workload(
            "sleep",
            f"{_APPS}:sleep",
            64,
            (Shape(2, 16),),
            "10 ms of sleep",
            blocks=_apps.SLEEP_SECONDS,
        ),
        Workload("cpu", f"{_APPS}:cpu", 16, (Shape(2, 1), _FOUR), "1 ms of Python"),
        Workload(
            "mixed",
            f"{_APPS}:mixed",
            64,
            (_FOUR,),
            "90 % hello, 10 % sleep of 10 ms; latency of the hellos",
            script="mixed.lua",
            blocks=_apps.SLEEP_SECONDS / 10,
            about="hello",
        ),
        Workload(
            "new",
            f"{_APPS}:sleep",
            32,
            (_FOUR,),
            "10 ms of sleep, four times as many kept alive as threads; latency of others, new",
            new=8,
            blocks=_apps.SLEEP_SECONDS,
            about="new",
        ),
        Workload("busy", f"{_APPS}:hello", 32, (_FOUR,), "hello, nobody idle beside it"),
        Workload("crowd", f"{_APPS}:hello", 32, (_FOUR,), "hello, beside 2,000 idle", idle=2000),
    )
}
