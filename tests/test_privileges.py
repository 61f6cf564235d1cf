"""As whom the application runs, and what the supervisor keeps of root's rights."""

import json
import os
import pwd
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from poolsrv import access_log
from poolsrv.errors import ConfigError
from poolsrv.settings.sources import from_options
from poolsrv.system import privileges
from poolsrv.system.pid_file import pid_file
from tests.server import ROOT, Server, run_to_end, serving

APP = "tests.apps.identity:application"
HELLO = "tests.apps.hello:app"

# The interpreter may lie in a folder of root's own: in a mount namespace, others may
# pass through it. The machine itself stays as it is.
_OPEN_HOME = """
case {prefix} in /root/*)
    top=/root/$(echo {prefix} | cut -d/ -f3)
    mount --bind "$top" /mnt && mount -t tmpfs -o mode=755 none /root &&
    mkdir "$top" && mount --move /mnt "$top"
esac && exec "$@"
"""


def as_root() -> tuple[str, ...]:
    """The command through which a server is started that becomes another user."""
    script = _OPEN_HOME.format(prefix=sys.base_prefix)
    through = ("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh")
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("there is no user nobody")
    command = [sys.executable, "-c", "import asyncio, poolsrv"]
    tried = subprocess.run(
        [*through, "setpriv", f"--reuid={nobody.pw_uid}", "--clear-groups", *command],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if os.geteuid() != 0 or tried.returncode != 0:
        pytest.skip("needs root, and an interpreter that another user can run")
    return through


def asked(server: Server) -> dict[str, Any]:
    with urllib.request.urlopen(server.url, timeout=10) as response:
        facts: dict[str, Any] = json.load(response)
    return facts


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.parametrize("preload", [False, True])
def test_the_application_runs_as_another_user(tmp_path: Path, preload: bool) -> None:
    nobody = pwd.getpwnam("nobody")
    log = tmp_path / "access"
    with serving(
        APP,
        tmp_path,
        through=as_root(),
        user="nobody",
        umask="0027",
        new_privs=False,
        preload=preload,
        processes=1,
        access_log=log,
    ) as server:
        facts = asked(server)
        assert facts["at import"] == nobody.pw_uid
        assert facts["uids"] == [nobody.pw_uid] * 3
        assert facts["gids"] == [nobody.pw_gid] * 3
        assert facts["groups"] == os.getgrouplist("nobody", nobody.pw_gid)
        assert facts["home"] == nobody.pw_dir
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
        assert (facts["Umask"], facts["NoNewPrivs"]) == ("0027", "1")
        assert status_of(server.exporter())["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert (
            int(status_of(server.pid)["CapEff"], 16)
            & ~sum(1 << bit for bit in privileges.KEPT.values())
            == 0
        )
        assert log.stat().st_uid == nobody.pw_uid
        server.wait_until(lambda: "GET / " in log.read_text())
        # The supervisor can still start, signal and end processes of that user.
        server.terminate(signal.SIGHUP)
        server.wait_until(lambda: asked(server)["pid"] != facts["pid"])
        assert asked(server)["uids"] == [nobody.pw_uid] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_log_that_was_put_there_is_neither_followed_nor_given_away(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("")
    (tmp_path / "link").symlink_to(precious)
    with pytest.raises(ConfigError, match="access-log"):
        access_log.open_log(str(tmp_path / "link"), 54321)
    for name, owner in (("precious", 0), ("new", 54321)):
        os.close(access_log.open_log(str(tmp_path / name), 54321))
        assert (tmp_path / name).stat().st_uid == owner
    somebody = privileges.Identity(54321, 54321, (54321,), "", "")
    precious.chmod(0o600)
    with privileges.acting_as(somebody), pytest.raises(PermissionError):
        precious.open("a").close()
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())
    groups = os.getgroups()
    os.chown(precious, 0, 4711)
    precious.chmod(0o660)
    os.setgroups([4711])
    try:
        with privileges.acting_as(somebody), pytest.raises(PermissionError):
            precious.open("a").close()
        assert os.getgroups() == [4711]
    finally:
        os.setgroups(groups)


def test_a_user_without_an_entry_needs_a_group(tmp_path: Path) -> None:
    status, log = run_to_end(HELLO, tmp_path, user="54321")
    assert status == 2
    assert "--user 54321: passwd has no such user" in log
    assert "name one with --group" in log


def test_a_user_without_an_entry_serves_with_a_group(tmp_path: Path) -> None:
    with serving(
        APP, tmp_path, through=as_root(), user="54321", group="54322", processes=1
    ) as server:
        facts = asked(server)
        assert (facts["uids"], facts["gids"]) == ([54321] * 3, [54322] * 3)
        assert facts["groups"] == [54322]


def test_only_root_may_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="only root may"):
        privileges.identity(from_options(application="x", user="54321", group="54321"))


def test_what_has_not_lost_its_rights_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *_: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigError, match="should be user 54321, group 54321, and is not"):
        privileges.assume(from_options(application="x", user="54321", group="54321"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_is_warned(tmp_path: Path) -> None:
    with serving(HELLO, tmp_path, processes=1) as server:
        assert "WARNING supervisor" in server.log()
        assert "the application runs as root: name another user with --user" in server.log()
    with serving(HELLO, tmp_path, processes=1, user="root") as server:
        assert "runs as root" not in server.log()


def test_the_pid_file_is_there_as_long_as_the_server(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text("1\n")  # of a server that was killed: nobody holds it
    with serving(HELLO, tmp_path, processes=1, pid_file=file) as server:
        assert file.read_text() == f"{server.pid}\n"
        status, log = run_to_end(HELLO, tmp_path, pid_file=file)
        assert status == 2
        assert f"the server with pid {server.pid} runs" in log
        assert file.read_text() == f"{server.pid}\n"
    assert not file.exists()


def test_a_pid_file_that_is_another_servers_by_now_stays(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pid_file(str(file)):
        file.rename(tmp_path / "moved")
        file.write_text("of another")
    assert file.read_text() == "of another"


def test_a_link_is_no_pid_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "pid").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match="--pid-file"), pid_file(str(tmp_path / "pid")):
        raise AssertionError
    assert (tmp_path / "victim").read_text() == "precious"
