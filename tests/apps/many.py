"""For interpreters: says which one it is in, and does what differs there."""

import atexit
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import poolsrv
from poolsrv import shared
from tests.apps.gate import wait_at_gate

HERE = f"{id(sys.modules):x}"  # no two interpreters of a process have the same
FOLDER = Path(os.environ["PROBE_DIR"])

Answer = Iterable[bytes]


def note(event: str) -> None:
    """One file for each interpreter that has come so far."""
    (FOLDER / f"{event}-{os.getpid()}-{HERE}").touch()


note("loaded")
atexit.register(note, "ended")


def hook() -> None:
    note("hooked")


def where(environ: dict[str, Any]) -> dict[str, Any]:
    return {
        "here": HERE,
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
        "script": environ["SCRIPT_NAME"],
        "path": environ["PATH_INFO"],
        "id": environ["poolsrv.request_id"],
    }


def hold(environ: dict[str, Any]) -> dict[str, Any]:
    """Wait in C, with the lock of the interpreter, until the gate lets us go."""
    with (FOLDER / "held.fifo").open("rb", buffering=0) as fifo:
        note("holds")
        ctypes.PyDLL(None).read(fifo.fileno(), ctypes.create_string_buffer(1), 1)
    return where(environ)


def pause(environ: dict[str, Any]) -> dict[str, Any]:
    wait_at_gate("gate")
    return where(environ)


def sleep(environ: dict[str, Any]) -> dict[str, Any]:
    note("sleeps")
    while True:
        time.sleep(0.01)


def later(environ: dict[str, Any]) -> dict[str, Any]:
    """A thread and an executor go on when this has been answered."""

    def work(event: str) -> None:
        wait_at_gate("gate")
        note(event)

    threading.Thread(target=work, args=("done",)).start()
    EXECUTOR.submit(work, "pooled")
    return where(environ)


def body(environ: dict[str, Any]) -> dict[str, Any]:
    return {"size": len(environ["wsgi.input"].read())}


def claim(environ: dict[str, Any]) -> dict[str, Any]:
    return {"first": poolsrv.once("many"), "count": shared.Counter("many").add()}


def dangers(environ: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, what in (("fork", os.fork), ("exceptions", sys._current_exceptions)):
        try:
            what()
        except RuntimeError as error:
            found[name] = str(error)
    frames = sys._current_frames()
    found["frames"] = frames[threading.get_ident()].f_code.co_name
    found["echo"] = subprocess.run(["echo", "hello"], capture_output=True, text=True).stdout
    return found


def speak(environ: dict[str, Any]) -> dict[str, Any]:
    print(f"printed in {HERE}")
    environ["wsgi.errors"].write(f"written in {HERE}\n")
    return where(environ)


EXECUTOR = ThreadPoolExecutor(2)

VIEWS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    f"/{view.__name__}": view for view in (hold, pause, sleep, later, body, claim, dangers, speak)
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer:
    path = environ["PATH_INFO"]
    if path == "/large":
        start_response("200 OK", [("Content-Length", "2000000")])
        return [bytes(1_000_000), bytes(1_000_000)]
    if path == "/file":
        file = Path(__file__).open("rb")  # noqa: SIM115 - the server closes it
        start_response("200 OK", [])
        found: Answer = environ["wsgi.file_wrapper"](file)
        return found
    if path == "/raise":
        raise ValueError(f"raised in {HERE}")
    answer = json.dumps(VIEWS.get(path, where)(environ)).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


other = partial(app)
