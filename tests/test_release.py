"""What stands between a commit and a release, and whether a wheel serves where nothing else is."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from poolsrv._version import __version__
from tests.test_package import MADE, ROOT, run

pytestmark = pytest.mark.once

NAMED = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com"}
NAMED |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What a release is judged by, committed."""
    for name in ["dist/release.py", "poolsrv/_version.py", "pyproject.toml", "CHANGELOG.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, env=os.environ | NAMED, check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a change")


def faults(repository: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "dist/release.py", "check"],
        cwd=repository,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert bool(done.returncode) == bool(done.stdout)
    return re.findall("^release: (.*)$", done.stdout, re.MULTILINE)


def test_all_that_is_missing_is_said_at_once_and_then_nothing(repository: Path) -> None:
    changelog = repository / "CHANGELOG.md"
    version = repository / "poolsrv" / "_version.py"
    version.write_text('__version__ = "1.2"\n')
    found = faults(repository)
    for wrong in ["1.2 in poolsrv", "begins with", "not committed", "no tag v1.2", "no Source"]:
        assert sum(wrong in fault for fault in found) == 1, found
    version.write_text('__version__ = "1.2.3"\n')
    text = changelog.read_text()
    changelog.write_text(re.sub("^## .*", "## 1.2.3 (2026-12-31)", text, count=1, flags=re.M))
    project = repository / "pyproject.toml"
    urls = '[project.urls]\nSource = "https://example.com"'
    project.write_text(project.read_text().replace("[project.urls]", urls))
    commit(repository)
    git(repository, "tag", "v1.2.3")
    assert faults(repository) == []
    commit(repository)  # the tag is on another
    assert [fault.partition(":")[0] for fault in faults(repository)] == [
        "the commit has no tag v1.2.3"
    ]


def test_a_wheel_serves_where_there_is_nothing_else(tmp_path: Path) -> None:
    tree, bare = tmp_path / "tree", tmp_path / "bare"
    shutil.copytree(ROOT, tree, ignore=MADE)
    # The same sources are compiled in other folders: a compiler cache knows them.
    os.environ.setdefault("CCACHE_NOHASHDIR", "1")
    run(tree, "bdist_wheel", "--dist-dir", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(bare)
    (packages,) = bare.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(packages)
    for name in ["multiprocess", "dill", "prometheus_client", "_multiprocess"]:
        for file in importlib.metadata.files(name.strip("_")) or ():
            if file.parts[0] == name:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
    done = subprocess.run(
        [bare / "bin" / "python", ROOT / "dist" / "try_wheel.py"],
        cwd=tmp_path,
        env={"PATH": str(bare / "bin")},  # no compiler
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"poolsrv {__version__} serves" in done.stdout
