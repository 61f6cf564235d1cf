"""`poolsrv check`: everything that would keep a server from starting, at once.

The application is loaded as a worker would do it, in a child that ends with
it; nothing is bound and no file is made.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from poolsrv import access_log
from poolsrv.errors import ApplicationError, ConfigError, ListenError, PoolsrvError
from poolsrv.pages import read_pages
from poolsrv.settings.addresses import TcpAddress, UnixAddress
from poolsrv.settings.exposed import exposed
from poolsrv.settings.files import Files
from poolsrv.settings.groups import groups_of
from poolsrv.settings.rows import ROWS, Settings
from poolsrv.supervisor.touch import touched_files
from poolsrv.system import privileges
from poolsrv.worker.loader import started_in

# A pipe takes that much at once, whoever reads it.
_LONGEST_WORD = 60_000


def faults_of(settings: Settings) -> Iterator[PoolsrvError]:
    """What keeps these settings and their application from being served."""
    if access_log.place_of(settings.access_log):
        yield from _file(settings.access_log)
    try:
        groups = [group.settings for group in groups_of(settings)]
    except ConfigError as error:
        yield error
        return
    for address, option in [
        *((address, "--bind") for address in dict.fromkeys(chain(*(g.bind for g in groups)))),
        (settings.admin, "--admin"),
    ]:
        match address:
            case TcpAddress():
                yield from _host(address, option)
            case UnixAddress():
                yield from _folder(address, option)
    for group in groups:
        base = group.chdir or ""
        for root in group.sendfile_root:
            yield from _files(Files(root), "--sendfile-root", base)
        for mount in group.mount:
            if mount.files:
                yield from _files(mount.files, f"mount {mount.host}{mount.path}:", base)
        for read in (read_pages, touched_files):
            try:
                read(group, str(Path.cwd()))
            except ConfigError as error:
                yield error
        if group.own_mounts():
            yield from _application(group)


def remarks_on(settings: Settings) -> Iterator[str]:
    """Of settings without a fault: what they mean on this machine, and what may not be meant."""
    folder = started_in()
    for path in touched_files(settings, folder):
        yield f"a reload follows when this file is touched: {path}"
    for line in exposed(settings, folder):
        yield f"warning: {line}"


def _file(path: str) -> Iterator[PoolsrvError]:
    file = Path(path).absolute()
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        yield ConfigError(
            f"--access-log {path}: cannot be written to",
            f"{file.parent} must exist, and it must be writable",
        )


def _host(address: TcpAddress, option: str) -> Iterator[PoolsrvError]:
    try:
        socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        yield ListenError(
            f"{address}: the host is not known: {error.strerror}",
            f"give a name or an address of this machine with {option}",
        )


def _folder(address: UnixAddress, option: str) -> Iterator[PoolsrvError]:
    folder = Path(address.path).absolute().parent
    if not os.access(folder, os.W_OK):
        yield ListenError(
            f"{address}: {folder} does not exist or is not writable",
            f"make the folder, or give another path with {option}",
        )


def _files(files: Files, option: str, base: str) -> Iterator[PoolsrvError]:
    place = Path(base, files.path).absolute()
    kind = "file" if files.is_file else "folder"
    if not (place.is_file() if files.is_file else place.is_dir()):
        yield ConfigError(
            f"{option} {files.path}: there is no such {kind}",
            f"make {place}, or give the path of a {kind} that is there",
        )
    elif place == place.parent:
        yield ConfigError(
            f"{option} {files.path}: this is the whole file system",
            "name the folder in which the files are",
        )
    elif not os.access(place, os.R_OK if files.is_file else os.R_OK | os.X_OK):
        yield ConfigError(
            f"{option} {files.path}: the {kind} cannot be read",
            f"let this user, or that of --user, read {place}",
        )


def _application(settings: Settings) -> Iterator[PoolsrvError]:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        # Whatever the application has started or registered, this child ends here.
        os.write(writer, _load(settings))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.close(writer)
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    is_late = not poll.poll(settings.startup_timeout * 1000)
    if is_late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    try:
        word = os.read(reader, _LONGEST_WORD)
    except BlockingIOError:  # a process that the application has started holds the other end
        word = b""
    os.close(reader)
    os.close(pidfd)
    if word:
        number, fault, remedy = json.loads(word)
        kinds = {kind.status: kind for kind in (ConfigError, ApplicationError)}
        if number:
            yield kinds[number](fault, remedy)
    elif is_late:
        timeout = ROWS["startup_timeout"].kind.show(settings.startup_timeout)
        yield ApplicationError(
            f"{settings.title!r} takes longer than {timeout} to load",
            "look at what it does while it is imported, or give a longer --startup-timeout",
        )
    else:
        code = os.waitstatus_to_exitcode(status)
        how = f"exit status {code}" if code >= 0 else f"signal {-code}"
        yield ApplicationError(
            f"{settings.title!r} ended the process while it was loaded: {how}",
            "look at what it does while it is imported",
        )


def _load(settings: Settings) -> bytes:
    """What to tell the parent: status, fault and remedy; status 0 if there is no fault."""
    from poolsrv.worker import interpreters
    from poolsrv.worker.applications import load_all

    try:
        privileges.assume(settings)
        environ = dict(os.environ)
        load_all(settings)
        interpreters.check(settings, environ)
    except PoolsrvError as error:
        fault, remedy = error.args
        # As JSON each character may take six bytes.
        return json.dumps([error.status, fault[: _LONGEST_WORD // 8], remedy]).encode()
    return json.dumps([0, "", ""]).encode()
