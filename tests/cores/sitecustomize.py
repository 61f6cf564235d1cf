"""Runs Python on a core that is built otherwise: `make test CORE=sanitized`, coverage or parallel.

Make puts this folder on PYTHONPATH. The core comes from CORE_BUILD, so that the
one beside the sources, which all others use, stays. What it reports goes to
CORE_BUILD/reports, one file a process, because not every test looks at what a
process says: tests/conftest.py fails the run for them.

The runtimes of the sanitizers must be the first libraries of a process. So each
Python starts itself anew with them preloaded, and then takes them out of the
environment: what Python starts (compilers, curl, Prometheus) runs without.
"""

import ctypes
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

BUILD = Path(os.environ["CORE_BUILD"])
LIBRARIES = os.environ.get("SANITIZERS", "")  # paths, separated by colons

OPTIONS = {
    # CPython keeps much until it ends; leaks are what the sweeps look for. And
    # faulthandler says more about a SIGSEGV, which some tests send.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=0",
    # A worker is forked where threads were never started, but an application may fork
    # beside its own.
    "TSAN_OPTIONS": "die_after_fork=0:handle_segv=0:exitcode=0:report_signal_unsafe=0"
    f":suppressions={Path(__file__).parent}/raced.suppressions",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # Else objects come from CPython's own arenas, which no sanitizer sees into.
    "PYTHONMALLOC": "malloc",
}


class OtherCore(MetaPathFinder):
    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if name != "poolsrv._core":
            return None
        return PathFinder.find_spec(name, [str(BUILD / "poolsrv")])


def preload() -> None:
    process = str(os.getpid())
    if os.environ.get("SANITIZED_PROCESS") != process:
        environ = os.environ | OPTIONS | {"LD_PRELOAD": LIBRARIES, "SANITIZED_PROCESS": process}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    if os.environ.pop("LD_PRELOAD", None):  # else it is another interpreter of the same process
        report = os.fsencode(BUILD / "reports" / "report")
        for library in LIBRARIES.split(":"):
            # By hand: UBSan's own runtime does not look at log_path beside ASan's.
            ctypes.CDLL(library).__sanitizer_set_report_path(report)


def count_at_exit() -> None:
    """Forked children end by os._exit, which writes no counts."""
    end = os._exit

    def dump_and_end(status: int) -> None:
        core = sys.modules.get("poolsrv._core")
        if core is not None:
            core.dump_coverage()
        end(status)

    os._exit = dump_and_end  # type: ignore[assignment]


if LIBRARIES:
    preload()
if BUILD.name == "coverage":
    count_at_exit()
sys.meta_path.insert(0, OtherCore())
