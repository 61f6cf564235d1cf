"""Further interpreters of a worker: they are made, load the applications, and end.

Runs in a worker, on its main thread, in the interpreter that the process began with;
guest.py is what runs in the others.
"""

import contextlib
import os
import pickle
from collections.abc import Mapping, Sequence

from poolsrv import _core, shared
from poolsrv.between import claims
from poolsrv.errors import MachineError, PoolsrvError
from poolsrv.settings.rows import Settings
from poolsrv.worker.guest import ONCE, Order, refuse_what_ends_us

_GUEST = "poolsrv.worker.guest"


def begin(number: int, order: Order) -> tuple[_core.Interpreter, ...]:
    """The interpreters 2 to `number`, with the applications loaded. Raises PoolsrvError."""
    if number == 1:
        return ()
    refuse_what_ends_us()
    claims.share_process(shared.Lock(ONCE))
    return tuple(_begun(order, at) for at in range(2, number + 1))


def check(settings: Settings, environ: Mapping[str, str]) -> None:
    """Load what is in the interpreters beside the first. Raises PoolsrvError."""
    for number in range(2, settings.interpreters + 1):
        _made(number, "check", (number, settings, environ))


def _begun(order: Order, number: int) -> _core.Interpreter:
    return _made(number, "begin", (number, order))


def _made(number: int, function: str, argument: object) -> _core.Interpreter:
    try:
        made = _core.Interpreter()
        failed = made.call(_GUEST, function, pickle.dumps(argument))
    except (RuntimeError, MemoryError) as error:
        raise MachineError(
            f"interpreter {number} cannot begin: {error}", "give fewer interpreters"
        ) from None
    if failed:
        reason = pickle.loads(failed)
        assert isinstance(reason, PoolsrvError)
        raise reason
    return made


def write_stacks(interpreters: Sequence[_core.Interpreter], file: int) -> None:
    """Add those of their threads to what has been written of the first's."""
    for number, interpreter in enumerate(interpreters, 2):
        with contextlib.suppress(OSError):  # a full file, or none any more
            os.write(file, b"\n" + interpreter.call(_GUEST, "stacks", str(number).encode()))


def end(interpreters: Sequence[_core.Interpreter], patience: float) -> bool:
    """No thread of ours is there any more. False: threads of the application are left, and
    what was registered for the end has been done all the same."""
    ended = True
    for interpreter in interpreters:
        left = interpreter.call(_GUEST, "end", str(patience).encode())
        if left or not interpreter.end():  # daemons may be left
            interpreter.call(_GUEST, "last_words", b"")
            ended = False
    return ended


def give_up(interpreters: Sequence[_core.Interpreter]) -> None:
    """Threads of ours are lost there: only what was registered for the end is done."""
    for interpreter in interpreters:
        interpreter.call(_GUEST, "give_up", b"")
