"""Says as whom it runs."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

_AT_IMPORT = os.getuid()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    status = Path("/proc/self/status").read_text().splitlines()
    facts = {
        "pid": os.getpid(),
        "at import": _AT_IMPORT,
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "home": os.environ.get("HOME"),
        **dict(line.split(":\t") for line in status if line.startswith(("NoNew", "Cap", "Umask"))),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]
