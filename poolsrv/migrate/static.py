"""Static files: which of their paths are folders, and which are files."""

from pathlib import PurePosixPath

from poolsrv.migrate.outcome import Refused


def mount_of(path: str, target: str, host: str = "") -> str | dict[str, str]:
    """A mount of what lies at `target`. Raises Refused where the names do not say what that is.

    By nothing but the names: the machine that the configuration is for may be another one.
    """
    where = path.rstrip("/") or "/"
    if not target.startswith("/"):
        raise Refused("write the whole path of what is served there")
    suffix = PurePosixPath(target).suffix
    if path.endswith("/") or target.endswith("/") or not suffix:
        return f"{host}{where}={target.rstrip('/')}/"
    if PurePosixPath(where).suffix != suffix:
        raise Refused("end the path of a folder with a slash; a mount of one file is a table, file")
    found = {"path": where, "file": target}
    return {"host": host, **found} if host else found
