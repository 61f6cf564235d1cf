"""The supervisor goes on: whatever it is told, whatever fails, whoever is stopped."""

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from poolsrv import _core
from poolsrv.between.scoreboard import SLOT, SUPERVISOR, Row
from poolsrv.supervisor import actions
from poolsrv.supervisor.actions import GroupAction, ServerAction
from poolsrv.supervisor.children import Child, Template
from poolsrv.supervisor.group import Group, Parts
from poolsrv.supervisor.loop import Supervisor
from poolsrv.supervisor.memory import OutOfMemory
from poolsrv.supervisor.pool import Pool
from poolsrv.supervisor.postmortem import answered, served
from poolsrv.supervisor.rows import SlotRow, SupervisorRow
from poolsrv.supervisor.server import Server as Machine
from poolsrv.supervisor.stacks import Stacks
from tests.apps.gate import Gate
from tests.board import Board
from tests.client import Client
from tests.server import Server

Start = Callable[..., Server]

PROBE = "tests.apps.probe:app"
KILLED = "worker was ended by"


def serves(server: Server) -> None:
    with Client(server.address) as client:
        assert client.get("/x").status == 200


# What it shows


def test_what_the_supervisor_writes_stands_in_its_rows() -> None:
    memory = _core.scoreboard_create(2, 1)
    board = _core.Scoreboard(memory)
    os.close(memory)
    server, slot = SupervisorRow(board), SlotRow(board, 1)
    server.wanted = 5
    server.count_reload(done=False)
    slot.pid = 4711
    slot.count_restart(actions.Reason.OOM)
    shown = Row(SUPERVISOR, board.supervisor())
    assert (shown["wanted"], shown.by_value("reloads")) == (5, {"done": 0, "failed": 1})
    shown = Row(SLOT, board.slot(1))
    assert (shown["pid"], shown.by_value("restarts")["oom"]) == (4711, 1)
    assert set(Row(SLOT, board.slot(0)).words) == {0}


def test_a_field_or_a_slot_that_does_not_exist_is_found_before_the_server_runs() -> None:
    memory = _core.scoreboard_create(1, 1)
    board = _core.Scoreboard(memory)
    os.close(memory)
    with pytest.raises(IndexError):
        SlotRow(board, 1)
    with pytest.raises((KeyError, RuntimeError)):  # the latter before Python 3.12
        type("Wrong", (), {"LAYOUT": SLOT, "no_such": SlotRow.__dict__["pid"].__class__()})
    with pytest.raises(AttributeError):
        SlotRow(board, 0).no_such = 1  # type: ignore[attr-defined]


# Exceptions


class Deaf:
    """A dispatcher that hears nothing."""

    def __getattr__(self, _name: str) -> Callable[..., list[object]]:
        return lambda *_: []


def deaf_supervisor(
    start_template: Callable[[int], Template],
) -> tuple[Supervisor, Callable[[], Row]]:
    """One that no dispatcher tells anything, and its row."""
    memory = _core.scoreboard_create(2, 1)
    board = _core.Scoreboard(memory)
    os.close(memory)

    def none() -> Child:
        raise OSError("none of this kind")

    pool = Pool(1, 2, startup_timeout=60, graceful_timeout=60)
    parts = Parts(
        "default", pool, cast(_core.Dispatcher, Deaf()), board, [], start_template, Stacks([])
    )
    supervisor = Supervisor(Machine([pool]), [parts], none, lambda: None, lambda: None)
    return supervisor, lambda: Row(SUPERVISOR, board.supervisor())


EACH: list[GroupAction] = [
    actions.StartTemplate(1),
    actions.QuitTemplate(1),
    actions.KillTemplate(1, ""),
    actions.Spawn(0, 1),
    actions.Enable(0),
    actions.Disable(0),
    actions.Drain(0),
    actions.Kill(0, ""),
    actions.Bury(0, None),
    actions.LastCall(),
    actions.TookOver(2),
    actions.ReloadFailed(2, "why"),
]
EACH_OF_THE_SERVER: list[ServerAction] = [
    actions.ForGroup(0, ()),
    actions.StartExporter(),
    actions.EndExporter(),
    actions.KillExporter(),
    actions.StartSuccessor(),
    actions.EndSuccessor(),
    actions.KillSuccessor(),
    actions.SuccessionFailed("why"),
    actions.HandOver(False),
    actions.SayReady(),
    actions.StopAccepting(),
    actions.Announce(),
    actions.Finish(0),
]


def test_an_exception_in_any_action_is_said_and_the_next_is_carried_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolsrv.supervisor.loop._SAY_AGAIN", 0.0)
    monkeypatch.setattr(logging.getLogger("poolsrv"), "propagate", True)
    assert {type(action) for action in EACH} == set(get_args(GroupAction))
    assert {type(action) for action in EACH_OF_THE_SERVER} == set(get_args(ServerAction))
    failed: list[type] = []

    def fails_once(carry_out: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def attempt(self: object, action: object) -> None:
            if type(action) not in failed:
                failed.append(type(action))
                raise ZeroDivisionError(type(action).__name__)
            carry_out(self, action)

        return attempt

    for each in (Group, Supervisor):
        monkeypatch.setattr(each, "_carry_out", fails_once(each._carry_out))

    def none(_: int) -> Template:
        raise OSError("none of this kind")

    supervisor, _ = deaf_supervisor(none)
    for action in EACH_OF_THE_SERVER:
        supervisor._do([action, actions.ForGroup(0, (actions.Disable(1),))])
    for wanted in EACH:
        supervisor.groups[0].act([wanted, actions.Disable(1)])
    said = [record.exc_text for record in caplog.records if record.exc_info]
    missing = {type(action).__name__ for action in (*EACH, *EACH_OF_THE_SERVER)} - {"Spawn"}
    for name in missing:
        assert any(f"ZeroDivisionError: {name}" in (text or "") for text in said), name


@pytest.mark.parametrize("number", [signal.SIGRTMIN, signal.SIGRTMAX - 1, signal.SIGABRT])
def test_a_worker_that_any_signal_ends(server: Start, number: int) -> None:
    """Real-time signals have no name in Python."""
    probe = server(PROBE, processes=1, allow_errors=KILLED)
    (victim,) = probe.workers()
    os.kill(victim, number)
    probe.wait_until(lambda: probe.workers() not in ([], [victim]))
    serves(probe)
    assert probe.metric("poolsrv_supervisor_faults_total") == 0


# Signals


def test_signals_that_are_sent_by_habit_end_nothing(server: Start) -> None:
    probe = server(PROBE, processes=1)
    habits = ["SIGUSR1", "SIGALRM", "SIGTTIN", "SIGTTOU"]
    mistakes = ["SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT", "SIGRTMIN", "SIGRTMAX"]
    for name in habits + mistakes:
        probe.terminate(signal.Signals[name])
        probe.wait_for_log(name)
        serves(probe)
    os.killpg(probe.pid, signal.SIGALRM)
    probe.wait_until(lambda: probe.log().count("SIGALRM") == 2)
    serves(probe)


def test_quit_stops_like_term(server: Start) -> None:
    probe = server(PROBE, processes=1)
    serves(probe)
    probe.terminate(signal.SIGQUIT)
    assert probe.wait() == 0


def test_the_access_log_is_opened_anew(server: Start, tmp_path: Path) -> None:
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    probe = server(PROBE, processes=2, access_log=log, allow_errors=KILLED)
    serves(probe)
    probe.wait_until(lambda: log.read_text().count("\n") == 1)
    log.rename(moved)
    probe.terminate(signal.SIGUSR1)

    def written() -> bool:
        """To the new file by every worker; the signal to each may take its time."""
        serves(probe)
        return log.exists() and log.read_text().count("\n") >= 20

    probe.wait_until(written)
    before = moved.read_text()
    # And by those that are forked from now on.
    victim = probe.workers()[0]
    probe.kill(victim)
    probe.wait_until(lambda: len(probe.workers()) == 2 and victim not in probe.workers())
    for _ in range(20):
        serves(probe)
    assert moved.read_text() == before


INHERITING = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_what_the_parent_ignores_and_blocks_does_not_matter(server: Start) -> None:
    probe = server(
        PROBE, processes=1, through=[sys.executable, "-c", INHERITING], allow_errors=KILLED
    )
    (victim,) = probe.workers()
    probe.kill(victim)
    probe.wait_until(lambda: probe.workers() not in ([], [victim]))
    serves(probe)
    assert probe.stop() == 0


# Processes


def stopped(pid: int) -> bool:
    """Every thread of it: a signal is sent before it has arrived everywhere."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_a_stopped_template_delays_no_request(server: Start) -> None:
    """What was on its way to a worker that dies goes to another at once."""
    probe = server(PROBE, processes=2, threads=4, allow_errors=KILLED)
    (template,) = probe.templates()
    victim = probe.workers()[0]
    for pid in (template, victim):
        probe.kill(pid, signal.SIGSTOP)
        probe.wait_until(lambda pid=pid: stopped(pid))
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(probe.address)) for _ in range(8)]
        for client in clients:
            client.send(b"GET /show-process HTTP/1.1\r\nHost: a\r\n\r\n")
        probe.wait_until(lambda: probe.metric("poolsrv_connections_dispatched_total") >= 8)
        probe.kill(victim)
        for client in clients:
            assert client.receive().body.split()[0] != str(victim).encode()
    assert "worker was ended by SIGKILL" in probe.log()
    probe.kill(template, signal.SIGCONT)
    probe.wait_until(lambda: len(probe.workers()) == 2)


def test_a_template_that_stays_stopped_is_replaced(server: Start) -> None:
    probe = server(PROBE, processes=2, allow_errors=f"{KILLED}|template")
    (template,) = probe.templates()
    probe.kill(template, signal.SIGSTOP)
    probe.wait_until(lambda: stopped(template))
    victim = probe.workers()[0]
    probe.kill(victim)
    probe.wait_for_log("template did not fork within 10 s: killed")
    probe.wait_until(lambda: len(probe.workers()) == 2)
    assert probe.templates() != [template]


def limit_processes(pid: int, number: int | None) -> None:
    limit = "unlimited" if number is None else str(number)
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={limit}:"], check=True)


def test_a_fork_that_fails_is_tried_again(server: Start) -> None:
    """Without descriptors for its pipes, as without memory or processes."""
    probe = server(PROBE, processes=2, allow_errors=f"{KILLED}|could not be forked")
    (template,) = probe.templates()
    limit_processes(template, 8)
    victim = probe.workers()[0]
    held = probe.descriptors(template)
    probe.kill(victim)
    probe.wait_for_log("could not be forked; it is tried again: .*Too many open files")
    assert probe.status()["ready"]["reason"].startswith("1 of 2")
    serves(probe)
    probe.wait_until(lambda: probe.log().count("could not be forked") == 3)
    limit_processes(template, 1024)
    probe.wait_until(lambda: len(probe.workers()) == 2)
    assert probe.templates() == [template]
    assert len(probe.descriptors(template)) <= len(held)


def test_what_the_application_leaves_behind_is_reaped(server: Start) -> None:
    """A grandchild whose parent has ended, as of a daemon or a shell."""
    probe = server(PROBE, processes=1)
    with Client(probe.address) as client:
        assert client.get("/orphan?count=5").status == 200
    probe.wait_until(lambda: len(probe.processes()) == len(probe.living()))


def test_a_message_without_its_descriptor_is_dropped() -> None:
    """What a template says may be an application's doing."""

    def life(control: socket.socket) -> None:
        control.setblocking(True)
        # No child of the supervisor: it is not for it to kill.
        said = {"generation": 1, "slot": 0, "pid": os.getppid()}
        control.send(json.dumps(["Spawned", said]).encode())
        control.send(b"nonsense")
        control.recv(1)

    templates: list[Template] = []

    def start(generation: int) -> Template:
        templates.append(Template(generation, life))
        return templates[-1]

    supervisor, row = deaf_supervisor(start)
    group = supervisor.groups[0]
    group.act(group.pool.start(0.0))
    while row()["faults"] < 2:
        assert select.select([templates[0].control], [], [], 10)[0]
        supervisor.guarded(group.hear_templates)
    # A process that the application has forked, and that says what a worker says.
    supervisor.guarded(group.heard, 0, _core.NEWS_READY, "4711 ")
    supervisor._end()
    assert row()["faults"] == 3


def test_a_death_is_one_record_with_what_was_inside(server: Start, tmp_path: Path) -> None:
    probe = server(PROBE, processes=1, log_format="json", allow_errors=KILLED)
    serves(probe)
    (victim,) = probe.workers()
    with closing(Gate(tmp_path)) as gate, Client(probe.address) as client:
        client.send(b"GET /hold?gate=gate&secret=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        probe.wait_until(gate.arrivals)
        probe.kill(victim)
        probe.wait_until(lambda: probe.workers() not in ([], [victim]))
        gate.release(1)
    lines = [json.loads(line) for line in probe.log().splitlines() if line.startswith("{")]
    (record,) = [line for line in lines if line.get("message", "").startswith("worker was ended")]
    assert (record["slot"], record["worker_pid"], record["generation"]) == (0, victim, 1)
    assert (record["served"], record["lost"]) == (1, 1)
    assert "SIGKILL\nrequest was lost with it: GET /hold id=" in record["message"]
    assert "secret" not in probe.log()


def test_an_out_of_memory_kill_is_told_from_a_count_that_cannot_be_read(tmp_path: Path) -> None:
    absent, count = tmp_path / "absent", tmp_path / "memory.events"
    count.write_text("oom 0\noom_kill 7\n")
    watched = OutOfMemory([absent, count])
    assert not watched.happened()
    count.write_text("oom 1\noom_kill 8\n")
    assert watched.happened()
    assert not watched.happened()
    count.unlink()  # as when no descriptor is left
    assert not watched.happened()
    count.write_text("oom 1\noom_kill 8\n")
    assert not watched.happened()
    assert not OutOfMemory([absent]).happened()


def test_who_has_served_files_only_has_not_proved_its_application() -> None:
    fd = _core.scoreboard_create(2, 2)
    try:
        board = Board(fd)
        board.count(1, "requests", 3, "2xx")
        board.count(1, "requests", 1, "4xx", thread=1)
        board.count(1, "files", 4, "2xx")
        assert (served(board.core, 1), answered(board.core, 1)) == (4, 0)
        board.count(1, "requests", 1, "5xx")
        assert (served(board.core, 1), answered(board.core, 1)) == (5, 1)
        assert answered(board.core, 0) == 0
    finally:
        os.close(fd)


def test_without_a_descriptor_to_spare_ends_are_noticed() -> None:
    """By a limit that somebody has lowered meanwhile: prlimit --nofile=0."""
    code = """if True:
        import os, resource, signal
        from poolsrv.system.processes import has_ended, reap
        child = os.fork()
        if child == 0:
            signal.pause()
        pidfd = os.pidfd_open(child)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        assert not has_ended(pidfd) and reap(pidfd) is None
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert has_ended(pidfd)
        assert str(reap(pidfd)) == "was ended by SIGKILL"
        assert has_ended(pidfd)
        assert str(reap(pidfd)) == "ended, and nobody was told how"
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
