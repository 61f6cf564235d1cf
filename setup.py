"""The C core; everything else is in pyproject.toml.

POOLSRV_BUILD chooses the build: release (default), unobserved (without
counters, to measure what they cost), strict (warnings are errors) or sanitized
(AddressSanitizer and UndefinedBehaviorSanitizer).
"""

import os
from pathlib import Path

from setuptools import Extension, setup

SANITIZERS = "-fsanitize=address,undefined"
RELEASE = ["-O3", "-fno-semantic-interposition", "-fno-plt"]
# -UNDEBUG: Python's own flags carry -DNDEBUG, which would silence assert().
FLAGS = {
    "release": RELEASE,
    "unobserved": [*RELEASE, "-DSCOREBOARD_OBSERVED=0"],
    "strict": ["-O2", "-UNDEBUG", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"],
    "sanitized": ["-O1", "-g", "-UNDEBUG", SANITIZERS, "-fno-sanitize-recover=undefined"],
}
SOURCES = Path("poolsrv/csrc")
build = os.environ.get("POOLSRV_BUILD", "release")

setup(
    ext_modules=[
        Extension(
            "poolsrv._core",
            sorted(map(str, SOURCES.rglob("*.c"))),
            depends=sorted(map(str, SOURCES.rglob("*.h"))),
            include_dirs=[str(SOURCES)],
            extra_compile_args=["-std=c11", "-fvisibility=hidden", "-pthread", *FLAGS[build]],
            extra_link_args=[SANITIZERS] if build == "sanitized" else [],
        )
    ]
)
