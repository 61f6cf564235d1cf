"""An application that at its start takes a lock that only one process can have, and a port."""

import fcntl
import os
import socket
from pathlib import Path

from tests.apps.hello import app

__all__ = ["app"]

_PLACE = Path(os.environ["PROBE_DIR"])

_file = (_PLACE / "lock").open("a")
fcntl.flock(_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
_listener = socket.socket(socket.AF_UNIX)
_listener.bind(f"\0{_PLACE}")
_listener.listen()
(_PLACE / "locked").write_text(str(os.getpid()))
