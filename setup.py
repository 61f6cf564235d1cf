"""The C core; everything else is in pyproject.toml.

POOLSRV_BUILD chooses the build: release (default), strict (warnings are
errors) or sanitized (AddressSanitizer and UndefinedBehaviorSanitizer).
"""

import os
from glob import glob

from setuptools import Extension, setup

# -UNDEBUG: Python's own flags carry -DNDEBUG, which would silence assert().
FLAGS = {
    "release": ["-O3", "-fno-semantic-interposition", "-fno-plt"],
    "strict": ["-O2", "-UNDEBUG", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"],
    "sanitized": ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
    + ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}
build = os.environ.get("POOLSRV_BUILD", "release")

setup(
    ext_modules=[
        Extension(
            "poolsrv._core",
            sorted(glob("poolsrv/csrc/*.c")),
            depends=sorted(glob("poolsrv/csrc/*.h")),
            extra_compile_args=["-std=c11", "-fvisibility=hidden", "-pthread", *FLAGS[build]],
            extra_link_args=FLAGS[build][-2:-1] if build == "sanitized" else [],
        )
    ]
)
