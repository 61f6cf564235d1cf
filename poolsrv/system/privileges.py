"""As whom the application runs, and what the supervisor keeps of root's rights.

The supervisor stays root if it was started so: it may have a port below 1024, and
must signal processes of another user and start new ones. Templates become the
user that --user names before they load anything, and their workers are born as
that; so does the exporter. Each step is checked: what was meant to lose its
rights and has not must not run.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from poolsrv import _core
from poolsrv.errors import ConfigError
from poolsrv.settings.rows import Settings

# What a supervisor of another user's workers needs (capabilities(7)), and what for.
KEPT = {
    "CAP_CHOWN": 0,  # sockets and logs, when they are opened anew
    "CAP_DAC_OVERRIDE": 1,  # in folders of others
    "CAP_FOWNER": 3,  # and their modes
    "CAP_KILL": 5,  # signals to workers
    "CAP_SETGID": 6,  # the next template
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,  # a port below 1024
}


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, with all groups; `name` and `home` are empty without an entry in passwd."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str

    @property
    def is_ours(self) -> bool:
        """Is it who this process is already?"""
        return (
            os.getresuid() == (self.uid,) * 3
            and os.getresgid() == (self.gid,) * 3
            and set(os.getgroups()) | {self.gid} == set(self.groups)
        )


def identity(settings: Settings) -> Identity | None:
    """Whom --user and --group name; None without them. Raises ConfigError."""
    if settings.user is None and settings.group is None:
        return None
    uid = settings.user.uid if settings.user is not None else os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        entry = None
    if settings.group is not None:
        gid = settings.group.gid
    elif entry is not None:
        gid = entry.pw_gid
    else:
        raise ConfigError(
            f"--user {uid}: passwd has no such user, so nobody knows the group",
            "name one with --group",
        )
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if entry is not None else (gid,)
    found = Identity(
        uid, gid, groups, entry.pw_name if entry else "", entry.pw_dir if entry else ""
    )
    if os.geteuid() != 0 and not found.is_ours:
        raise ConfigError(
            f"--user and --group: only root may run workers as user {uid} and group {gid}",
            "start poolsrv as root, or as that user and without these options",
        )
    return found


def assume(settings: Settings) -> None:
    """In a template or the exporter: become whom the settings name. Raises ConfigError."""
    whom = identity(settings)
    if whom is not None and not whom.is_ours:
        try:
            os.setgroups(whom.groups)
            os.setresgid(whom.gid, whom.gid, whom.gid)
            os.setresuid(whom.uid, whom.uid, whom.uid)
        except OSError as error:
            raise ConfigError(
                f"--user: cannot become user {whom.uid}, group {whom.gid}: {error.strerror}",
                "a container needs the capabilities SETUID and SETGID for that",
            ) from None
        _check(whom)
    if whom is not None and whom.name:
        os.environ.update(HOME=whom.home, USER=whom.name, LOGNAME=whom.name)
    if settings.umask is not None:
        os.umask(settings.umask)
    if not settings.new_privs:
        try:
            _core.forbid_new_privileges()
        except OSError as error:
            raise ConfigError(
                f"--no-new-privs: {error.strerror}", "leave it out on this kernel"
            ) from None


@contextmanager
def acting_as(whom: Identity | None) -> Iterator[None]:
    """In the supervisor: do something with no more rights than that user has."""
    if whom is None or os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    try:
        os.setgroups(whom.groups)  # what is for a group of root's is not for that user
        os.setegid(whom.gid)
        os.seteuid(whom.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(groups)


def _check(whom: Identity) -> None:
    if not whom.is_ours:
        raise ConfigError(
            f"--user: this process should be user {whom.uid}, group {whom.gid}, and is not",
            "look for a security module that forbids it",
        )
    if whom.uid == 0:
        return
    try:
        os.setresuid(-1, 0, -1)
    except PermissionError:
        return
    raise ConfigError(
        "--user: this process has given up root, and can become root again",
        "look at its capabilities and securebits",
    )


def keep_what_is_needed() -> str:
    """In the supervisor, when all is open: drop all capabilities but KEPT. What is kept."""
    try:
        _core.keep_capabilities(sum(1 << bit for bit in KEPT.values()))
    except OSError as error:
        raise ConfigError(
            f"--user: the supervisor cannot give up capabilities: {error.strerror}",
            "look for a security module that forbids it",
        ) from None
    return " ".join(KEPT)
