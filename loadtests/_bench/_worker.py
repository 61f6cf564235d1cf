"""One worker without the other processes: `python -m loadtests._bench._worker`.

Debian's valgrind knows no pidfd_open, which the supervisor starts with. So the
supervisor's part is _instructions', and this process is a worker and no more.
"""

import os
import socket
import sys

from loadtests._bench import _apps
from poolsrv import shared
from poolsrv.between.claims import make
from poolsrv.settings.rows import Settings
from poolsrv.worker.main import Job, run
from poolsrv.worker.serving import Site


def main(board: int, ours: int, theirs: int, bell: int, lifeline: int) -> None:
    """Arguments are descriptors, by the names of a Job."""
    job = Job(
        # Without the watchdog: the second thread is the one that serves.
        settings=Settings(processes=1, threads=1, watchdog_timeout=0),
        application=_apps.hello,
        loaded=None,
        title="bench",
        board=board,
        channels=[(socket.socket(fileno=ours), socket.socket(fileno=theirs))],
        bell=bell,
        lifeline=lifeline,
        access_log=-1,
        access_log_place="",
        stacks=[os.memfd_create("stacks")],
        sites=[Site("127.0.0.1", "80")],
        once=make(),
        shared=shared.make(),
        folder=".",
        pages=(),
        release=None,
        environ=None,
        group="",
    )
    run(job, slot=0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
