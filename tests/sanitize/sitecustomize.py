"""Runs Python on the sanitized core: `make test SANITIZE=1` puts this folder on PYTHONPATH.

The runtime of AddressSanitizer must be the first library of a process, so
every Python starts itself anew with it preloaded, and then takes it out of
the environment: what Python starts (compilers, curl, Prometheus) runs
without. The core comes from a folder of its own, so that the one beside the
sources, which the other tests use, stays.
"""

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

RUNTIME = os.environ["SANITIZER_RUNTIME"]
BUILD = Path(os.environ["SANITIZER_BUILD"])

OPTIONS = {
    # CPython keeps much until it exits: leaks are what the sweeps look for.
    "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:log_path={BUILD}/reports/address",
    "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={BUILD}/reports/undefined",
    # Else objects come from CPython's own arenas, which no sanitizer sees into.
    "PYTHONMALLOC": "malloc",
}


class SanitizedCore(MetaPathFinder):
    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if name != "poolsrv._core":
            return None
        return PathFinder.find_spec(name, [str(BUILD / "poolsrv")])


if os.environ.get("LD_PRELOAD") != RUNTIME:
    environ = os.environ | OPTIONS | {"LD_PRELOAD": RUNTIME}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
del os.environ["LD_PRELOAD"]
sys.meta_path.insert(0, SanitizedCore())
