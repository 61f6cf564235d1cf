"""Holds requests inside an application until the test lets them go.

A gate is a FIFO in the test's directory: each request that passes takes one
byte from it and blocks, with the GIL released and without a clock, while
there is none. Who came is written to a file beside it.
"""

import os
import threading
from pathlib import Path


class Gate:
    """The test's side. Closing it releases everybody."""

    def __init__(self, directory: Path, name: str = "gate") -> None:
        self.name = name
        self._arrivals = directory / f"{name}.arrivals"
        self._arrivals.touch()
        fifo = directory / f"{name}.fifo"
        os.mkfifo(fifo)
        # Read and write: so neither this open nor the other side's ever blocks.
        self._descriptor = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)

    def arrivals(self) -> list[tuple[int, int]]:
        """(process, thread) of each request that has reached the gate, in order."""
        lines = self._arrivals.read_text().splitlines()
        return [(int(process), int(thread)) for process, thread in map(str.split, lines)]

    def release(self, count: int) -> None:
        os.write(self._descriptor, b"." * count)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def wait_at_gate(name: str) -> None:
    """The application's side: PROBE_DIR says where the gate is."""
    directory = Path(os.environ["PROBE_DIR"])
    # Opened before the arrival is told: a gate closed from then on releases us.
    with (directory / f"{name}.fifo").open("rb", buffering=0) as fifo:
        with (directory / f"{name}.arrivals").open("a") as arrivals:
            arrivals.write(f"{os.getpid()} {threading.get_native_id()}\n")
        fifo.read(1)
