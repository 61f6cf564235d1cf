"""What is distributed: a source archive that can be built and tested, a wheel without sources."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
MADE = shutil.ignore_patterns("__pycache__", "*.so", "build", ".*", "*.egg-info")


def run(folder: Path, *command: str) -> None:
    subprocess.run([sys.executable, "setup.py", "--quiet", *command], cwd=folder, check=True)


def test_without_a_compiler_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=MADE)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext"],
        cwd=tree,
        env={"CC": "none-such -pthread", "PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "poolsrv: the C compiler none-such is missing: apt-get install gcc libc6-dev\n"
    )


def test_the_archive_has_all_and_the_wheel_no_sources(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=MADE)
    run(tree, "sdist", "--dist-dir", str(tmp_path))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "out", filter="data")
    (source,) = (tmp_path / "out").iterdir()

    def files(folder: Path, *patterns: str) -> set[Path]:
        return {found.relative_to(folder) for end in patterns for found in folder.rglob(end)}

    for patterns in [("*.c", "*.h"), ("*.py", "*.md", "*.toml"), ("*.http", "*.service", "*.1")]:
        assert files(source, *patterns) >= files(tree, *patterns) - {Path("MANIFEST.in")}
    # As a wheel is made of it: setuptools takes what the archive lists for data.
    run(source, "build_py", "--build-lib", str(tmp_path / "lib"))
    assert not files(tmp_path / "lib", "*.c", "*.h")
    assert files(tmp_path / "lib", "*.css", "*.html", "py.typed", "*.pyi")
