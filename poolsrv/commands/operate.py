"""The commands that ask a running server: status, workers, reload, stop, ...

Runs in a process of its own, at the command line. What a command shows it reads
from the server's scoreboard, which the server hands over: looking costs the
server nothing. A command prints lines for people, or with --json one object.
"""

import dataclasses
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from poolsrv.between.control import Answer, Command, ask, find
from poolsrv.between.scoreboard import Reader
from poolsrv.errors import ConfigError, ControlError
from poolsrv.exporter import About
from poolsrv.exporter.reading import Source
from poolsrv.exporter.status import RunningRequest, Status, Worker, status
from poolsrv.log import escape
from poolsrv.settings.mounts import DEFAULT_GROUP
from poolsrv.system.processes import pid_namespace

# A worker writes its stacks within milliseconds, if at all; this long without more is the end.
_QUIET = 0.2
_LONGEST_SILENCE = 3.0

# How often a server is looked for whose process cannot be watched from here.
_LOOK_AGAIN = 0.1

# A stopped supervisor answers nothing; a reload takes what the application takes.
_PATIENCE = 10.0


def show_status(path: Path, _words: Sequence[str], as_json: bool) -> int:
    now = look(path)
    if as_json:
        return _print_json(dataclasses.asdict(now))
    server, threads, queue, requests = now.server, now.threads, now.queue, now.requests
    print(f"{server.application}  poolsrv {server.version}, Python {server.python}")
    for name, value in (
        ("state", f"{server.state}: {now.ready.reason}"),
        ("pid", f"{server.pid}, up {_age(server.uptime_seconds)}, generation {server.generation}"),
        ("addresses", " ".join(server.addresses)),
        ("threads", f"{threads.busy} of {threads.total} busy"),
        ("queue", f"{queue.length} waiting, the first for {_age(queue.oldest_seconds)}"),
        ("requests", f"{requests.total} answered, {requests.per_second:.1f} a second"),
        ("connections", ", ".join(f"{n} {state}" for state, n in now.connections.items())),
    ):
        print(f"  {name:<12} {value}")
    for group in now.groups:
        busy, waits = group.threads, group.queue.length
        print(
            f"  group {group.name}: {group.ready.reason}; generation {group.generation}, "
            f"{busy.busy} of {busy.total} threads busy, {waits} waiting, "
            f"{group.requests.total} answered"
        )
    return 0


def show_workers(path: Path, words: Sequence[str], as_json: bool) -> int:
    now = look(path)
    workers = _of_group(now, now.workers, words)
    if as_json:
        return _print_json([dataclasses.asdict(worker) for worker in workers])
    rows = [
        (
            _slot_name(worker),
            worker.pid or "-",
            worker.state,
            worker.generation,
            _age(worker.age_seconds),
            f"{worker.busy}/{worker.threads}",
            worker.requests,
            f"{worker.resident_bytes / 2**20:.1f}",
            f"{worker.cpu_seconds:.1f}",
            sum(worker.restarts.values()),
        )
        for worker in workers
    ]
    heads = "SLOT PID STATE GENERATION AGE BUSY REQUESTS MIB CPU-SECONDS RESTARTS"
    _print_table(heads.split(), rows)
    return 0


def show_requests(path: Path, words: Sequence[str], as_json: bool) -> int:
    now = look(path)
    running = _of_group(now, now.running, words)
    if as_json:
        return _print_json([dataclasses.asdict(request) for request in running])
    rows = [
        (
            _age(request.age_seconds),
            request.state,
            _slot_name(request),
            request.thread,
            request.pid,
            escape(request.method),
            escape(request.path),
            escape(request.request_id),
        )
        for request in running
    ]
    _print_table(["AGE", "STATE", "SLOT", "THREAD", "PID", "METHOD", "PATH", "ID"], rows)
    return 0


def show_settings(path: Path, words: Sequence[str], as_json: bool) -> int:
    answer = _ask(path, "settings", **_group(words, "settings"))
    if as_json:
        return _print_json(answer.result)
    sections = {name: found for name, found in answer.result.items() if isinstance(found, dict)}
    for name, found in (sections or {"": dict(answer.result)}).items():
        if name:
            print(f"\ngroup {name}")
        _print_table(("OPTION", "VALUE"), found.items())
    return 0


def show_events(path: Path, _words: Sequence[str], as_json: bool) -> int:
    answer = _ask(path, "events")
    if as_json:
        return _print_json(answer.result["events"])
    for event in answer.result["events"]:
        facts = dict(event)
        when = datetime.fromtimestamp(facts.pop("time")).astimezone()
        level = facts.pop("level")
        message = f"{facts.pop('code', '')} {facts.pop('message')}".lstrip()
        fields = "".join(f" {name}={value}" for name, value in facts.items())
        print(f"{when:%Y-%m-%d %H:%M:%S} {level.upper():<7} {escape(message)}{escape(fields)}")
    return 0


def reload(path: Path, words: Sequence[str], as_json: bool) -> int:
    answer = ask(path, Command("reload", _group(words, "reload")))
    done = f"generation {answer.result.get('generation')} serves"
    return _print_outcome(answer, as_json, done, "the reload failed")


def upgrade(path: Path, _words: Sequence[str], as_json: bool) -> int:
    answer = ask(path, Command("upgrade"))
    done = f"the supervisor with pid {answer.result.get('pid')} has taken over"
    return _print_outcome(answer, as_json, done, "the upgrade failed")


def recycle(path: Path, words: Sequence[str], as_json: bool) -> int:
    group, slot = _place(_one(words, "recycle", "SLOT, or all"))
    given = slot if slot == "all" else _number(slot, "a slot")
    answer = _order(path, "recycle", slot=given, **group)
    slots = ", ".join(map(str, answer.result["slots"]))
    done = f"other workers serve in the place of {slots}"
    return _print_outcome(answer, as_json, done, "not all workers are replaced")


def scale(path: Path, words: Sequence[str], as_json: bool) -> int:
    group, _, number = _one(words, "scale", "the number of workers").rpartition("=")
    count = _number(number, "a number of workers")
    answer = _order(path, "scale", processes=count, **({"group": group} if group else {}))
    done = f"from {answer.result['before']} to {count} workers"
    return _print_outcome(answer, as_json, done, f"there are not {count} workers")


def _print_outcome(answer: Answer, as_json: bool, done: str, failed: str) -> int:
    """Of a command that was waited for; the exit status."""
    if as_json:
        _print_json({"error": answer.error, **answer.result})
    elif answer.error:
        print(f"poolsrv: error: {failed}: {answer.error}", file=sys.stderr)
    else:
        print(done)
    return 1 if answer.error else 0


def show_stacks(path: Path, words: Sequence[str], as_json: bool) -> int:
    if words:
        names = [words[0]]
    else:
        names = [_slot_name(worker) for worker in look(path).workers if worker.pid]
    found = {}
    for name in names:
        group, slot = _place(name)
        answer = _ask(path, "stacks", slot=_number(slot, "a slot"), **group)
        found[name] = _stacks(answer.fds[0] if answer.fds else None)
    if as_json:
        return _print_json(found)
    for slot, text in found.items():
        print(f"worker {slot}:\n{text or '(it has written nothing: it is stopped)'}")
    return 0 if all(found.values()) else 1


def stop(path: Path, _words: Sequence[str], as_json: bool, *, now: bool = False) -> int:
    about = _ask(path, "hello").result
    ended = _watched(int(about["pid"]), about.get("pid_namespace"))
    _ask(path, "stop", now=now)
    if ended is not None:
        select.select([ended], [], [])
        os.close(ended)
    else:
        while _answers(path):
            time.sleep(_LOOK_AGAIN)
    if as_json:
        return _print_json({"pid": about["pid"]})
    print(f"{about['application']} (pid {about['pid']}) has ended")
    return 0


# Asking


def at(given: str) -> Path:
    """The socket of the server that is meant; `given` is Settings.control."""
    return find(given)


def _ask(path: Path, name: str, **arguments: object) -> Answer:
    answer = ask(path, Command(name, arguments), timeout=_PATIENCE)
    if answer.error:
        raise ControlError(answer.error)
    return answer


def _order(path: Path, name: str, **arguments: object) -> Answer:
    """The outcome, however long it takes. Raises ControlError if the server refuses at once."""
    answer = ask(path, Command(name, arguments))
    if answer.error and not answer.result:
        raise ControlError(answer.error)
    return answer


def look(path: Path) -> Status:
    """The server's state now."""
    answer = _ask(path, "board")
    if not answer.fds:
        raise ControlError(f"{path}: the server has sent no scoreboard")
    try:
        about = {**answer.result, "addresses": tuple(answer.result["addresses"])}
        names = {field.name for field in dataclasses.fields(About)}
        kept = {name: value for name, value in about.items() if name in names}
        groups = about.get("groups", [""])  # servers of before have one, and do not name it
        several = len(groups) > 1
        readers = [
            Reader(fd, name if several else "")
            for fd, name in zip(answer.fds, groups, strict=False)
        ]
        source = Source(readers, About(supervisor_pid=int(about["pid"]), **kept))
        return status(source.read(time.monotonic_ns()))
    except OSError:
        raise ControlError(
            "the server's scoreboard is of another version", "use the poolsrv that it runs"
        ) from None
    finally:
        for fd in answer.fds:
            os.close(fd)


def _watched(pid: int, namespace: object) -> int | None:
    """Its pidfd; None if it has ended, or lives in a container: the number is another's here."""
    if namespace != pid_namespace():
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _answers(path: Path) -> bool:
    try:
        ask(path, Command("hello"), timeout=_PATIENCE)
    except ControlError:
        return False
    return True


def _stacks(fd: int | None) -> str:
    """What the worker has written by now; empty if it writes nothing."""
    if fd is None:
        return ""
    begin = changed = time.monotonic()
    size = 0
    try:
        while time.monotonic() - (changed if size else begin) < (
            _QUIET if size else _LONGEST_SILENCE
        ):
            time.sleep(0.02)
            now = os.fstat(fd).st_size
            if now != size:
                size, changed = now, time.monotonic()
        return os.pread(fd, size, 0).decode(errors="backslashreplace")
    finally:
        os.close(fd)


# Words and lines


def _one(words: Sequence[str], command: str, what: str) -> str:
    if len(words) != 1:
        raise ConfigError(f"{command} takes one word: {what}")
    return words[0]


def _group(words: Sequence[str], command: str) -> dict[str, str]:
    """What to say of the group that is named, if one is."""
    return {"group": _one(words, command, "a group of processes")} if words else {}


def _place(name: str) -> tuple[dict[str, str], str]:
    """The group and the slot of `api/2`, or of `2` where there is one group."""
    group, _, slot = name.rpartition("/")
    return ({"group": group} if group else {}), slot


def _slot_name(at: Worker | RunningRequest) -> str:
    return f"{at.group}/{at.slot}" if at.group else str(at.slot)


_Of = TypeVar("_Of", Worker, RunningRequest)


def _of_group(now: Status, found: Sequence[_Of], words: Sequence[str]) -> list[_Of]:
    """Those of the group that is named, or all. Raises ControlError."""
    if not words:
        return list(found)
    name = _one(words, "this", "a group of processes")
    names = [group.name for group in now.groups] or [DEFAULT_GROUP]
    if name not in names:
        raise ControlError(f"there is no group {name}", f"the groups are {', '.join(names)}")
    return [each for each in found if each.group in (name, "")]


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ConfigError(f"{text!r} is not {what}")
    return int(text)


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, _ = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if days else f"{hours}h{minutes:02d}m" if hours else f"{minutes}m"


def _print_json(value: object) -> int:
    print(json.dumps(value, indent=1, default=str))
    return 0


def _print_table(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    lines = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


Run = Callable[[Path, Sequence[str], bool], int]

COMMANDS: Mapping[str, Run] = {
    "status": show_status,
    "workers": show_workers,
    "requests": show_requests,
    "reload": reload,
    "upgrade": upgrade,
    "recycle": recycle,
    "scale": scale,
    "stacks": show_stacks,
    "settings": show_settings,
    "events": show_events,
    "stop": stop,
}


def run(name: str, given: str, words: Sequence[str], switches: Iterable[str]) -> int:
    """Carry out a command; the exit status. Raises ControlError or ConfigError."""
    as_json = "--json" in switches
    path = at(given)
    if name == "stop":
        return stop(path, words, as_json, now="--now" in switches)
    return COMMANDS[name](path, words, as_json)
