"""An application for groups of processes: it says in which group and process a request ran."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Below its mount: /die ends the process; others say who has answered and what came."""
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/die":
        os._exit(9)
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(60)
    facts = {
        "group": os.environ.get("GROUP", ""),
        "pid": os.getpid(),
        "uid": os.getuid(),
        "folder": str(Path.cwd()),
        "umask": _umask(),
        "mount": environ["SCRIPT_NAME"],
        "path": environ["PATH_INFO"],
        "length": len(body),
        "multithread": environ["wsgi.multithread"],
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
