"""The C core; everything else is in pyproject.toml.

POOLSRV_BUILD chooses the build: release (default), unobserved (without
counters, to measure what they cost), strict (warnings are errors), sanitized
(AddressSanitizer and UndefinedBehaviorSanitizer), raced (ThreadSanitizer),
coverage (for gcov) or parallel (threads are scheduled as if there were no GIL).
"""

import os
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SANITIZERS = "-fsanitize=address,undefined"
RACES = "-fsanitize=thread"
RELEASE = ["-O3", "-fno-semantic-interposition", "-fno-plt"]
# -UNDEBUG: Python's own flags carry -DNDEBUG, which would silence assert().
FLAGS = {
    "release": RELEASE,
    "unobserved": [*RELEASE, "-DSCOREBOARD_OBSERVED=0"],
    "strict": ["-O2", "-UNDEBUG", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"],
    "sanitized": ["-O1", "-g", "-UNDEBUG", SANITIZERS, "-fno-sanitize-recover=undefined"],
    # It does not know fences, and says so; those order atomics, which it knows.
    "raced": ["-O1", "-g", "-UNDEBUG", RACES, "-Wno-tsan"],
    "coverage": ["-O0", "-g", "-UNDEBUG", "--coverage", "-DPOOLSRV_COVERAGE"],
    "parallel": [*RELEASE, "-UNDEBUG", "-DWORKER_PARALLEL=1"],
}
LINK = {"sanitized": [SANITIZERS], "raced": [RACES], "coverage": ["--coverage"]}
SOURCES = Path("poolsrv/csrc")
build = os.environ.get("POOLSRV_BUILD", "release")


class BuildCore(build_ext):
    """Says what is missing before a compiler says it in a hundred lines.

    Compiles as many files at a time as there are processors; setuptools would take one.
    """

    def build_extensions(self):
        compiler = self.compiler.compiler_so[0]
        if shutil.which(compiler) is None:
            sys.exit(
                f"poolsrv: the C compiler {compiler} is missing: apt-get install gcc libc6-dev"
            )
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            sys.exit("poolsrv: Python.h is missing: apt-get install python3-dev")
        compile_in_turn = self.compiler.compile

        def compile_side_by_side(sources, *arguments, **named):
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
                made = [
                    executor.submit(compile_in_turn, [source], *arguments, **named)
                    for source in sources
                ]
            return [file for future in made for file in future.result()]

        self.compiler.compile = compile_side_by_side
        super().build_extensions()


setup(
    cmdclass={"build_ext": BuildCore},
    ext_modules=[
        Extension(
            "poolsrv._core",
            sorted(map(str, SOURCES.rglob("*.c"))),
            depends=sorted(map(str, SOURCES.rglob("*.h"))),
            include_dirs=[str(SOURCES)],
            # gnu11, not c11: musl would hide all of POSIX.
            extra_compile_args=["-std=gnu11", "-fvisibility=hidden", "-pthread", *FLAGS[build]],
            extra_link_args=LINK.get(build, []),
        )
    ],
)
