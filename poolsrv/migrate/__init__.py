"""`poolsrv migrate FILE`: what another server's configuration says, as a poolsrv.toml.

The file is read as text: nothing in it is executed, imported or started. What has no
counterpart, or cannot be known without running it, is listed with the reason, never guessed.
"""

from pathlib import Path

from poolsrv.errors import ConfigError
from poolsrv.migrate import apache, gunicorn, uwsgi
from poolsrv.migrate.outcome import Outcome

# A configuration is written by hand.
_MOST_BYTES = 2**20

_FORMS = "gunicorn.conf.py, a uwsgi.ini or a configuration of Apache with mod_wsgi"


def migrate(name: str, group: str = "") -> Outcome:
    """What the file says, or one `group` of processes in it: Apache's has several.

    Raises ConfigError if it cannot be read as what it is.
    """
    path = Path(name)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}", f"give a {_FORMS}") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{name}: is larger than a MiB", f"give a {_FORMS}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}: is not UTF-8", "save it in this encoding") from None
    server = _server(path, text)
    outcome = Outcome(name, server)
    match server:
        case "gunicorn":
            gunicorn.read(path, text, outcome)
        case "uWSGI":
            uwsgi.read(path, text, outcome)
        case _:
            apache.read(path, text, outcome, group)
    outcome.check()
    return outcome


def _server(path: Path, text: str) -> str:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml", ".json", ".xml"):
        raise ConfigError(
            f"{path}: of uWSGI's formats only ini is read",
            "write its options as name = value below a line [uwsgi]",
        )
    if suffix == ".py":
        return "gunicorn"
    lines = [line.strip().lower() for line in text.splitlines()]
    if suffix == ".ini" or "[uwsgi]" in lines:
        return "uWSGI"
    if suffix == ".conf" or any(line.startswith(("wsgi", "<virtualhost")) for line in lines):
        return "Apache"
    raise ConfigError(f"{path}: nothing tells of which server it is", f"give a {_FORMS}")
