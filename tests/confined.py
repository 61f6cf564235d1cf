"""Run a command whose system call fails: python -m tests.confined CALL ERRNO COMMAND...

As in a container whose seccomp profile is older than the call. Linux on x86_64 and aarch64,
where calls of the last years have the same numbers.
"""

import ctypes
import os
import struct
import sys

_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
_FAIL, _ALLOW = 0x00050000, 0x7FFF0000

OPENAT2 = 437


def refuse(call: int, error: int) -> None:
    """From now on, in this process and all that come of it."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in [
            (_LOAD, 0, 0, 0),  # the number of the call
            (_EQUAL, 0, 1, call),
            (_RETURN, 0, 0, _FAIL | error),
            (_RETURN, 0, 0, _ALLOW),
        ]
    )
    memory = ctypes.create_string_buffer(program, len(program))
    table = struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER, table)):
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse(int(sys.argv[1]), int(sys.argv[2]))
    os.environ.pop("SANITIZED_PROCESS", None)  # the next one starts itself anew: tests/cores
    os.execvp(sys.argv[3], sys.argv[3:])
