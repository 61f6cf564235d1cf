"""Groups of processes: a real server with several of them, and what each keeps to itself."""

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.client import Client, Response, Truncated, head
from tests.server import ROOT, Server, run_to_end, serving
from tests.test_privileges import as_root

APP = "tests.apps.grouped:app"

# Its default group is at /, api is at /api.
TWO = f"""
application = "{APP}"
environment = {{ GROUP = "default" }}
[[mount]]
path = "/api"
application = "{APP}"
group = "api"
[group.api]
processes = 2
threads = 2
environment = {{ GROUP = "api" }}
"""


@contextmanager
def groups(
    tmp_path: Path,
    text: str,
    *,
    allow_errors: str | None = None,
    through: Sequence[str] = (),
    grows: bool = False,
    **options: object,
) -> Iterator[Server]:
    """A server of this poolsrv.toml; at its end it has more processes if it `grows`."""
    file = tmp_path / "poolsrv.toml"
    file.write_text(text)
    control = tmp_path / "control.sock"
    with serving(
        "",
        tmp_path,
        allow_errors=allow_errors,
        through=through,
        config=file,
        control=control,
        **({"processes": 1, "threads": 2} | options),
    ) as server:
        yield server
        if grows:
            assert server.stop() == 0


def command(tmp_path: Path, *words: str) -> str:
    """What a command of the command line prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "poolsrv", *words, "--control", tmp_path / "control.sock"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def facts(answer: Response) -> dict[str, Any]:
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def ask(server: Server, path: str) -> dict[str, Any]:
    with Client(server.address) as client:
        return facts(client.get(path))


def pids(server: Server, group: str) -> set[int]:
    """Of the workers that are ready in a group."""
    rows = server.status()["workers"]
    return {row["pid"] for row in rows if row["group"] == group and row["state"] == "ready"}


# Whose a request is


def test_a_kept_connection_alternates_between_groups(tmp_path: Path) -> None:
    with groups(tmp_path, TWO) as server, Client(server.address) as client:
        for number in range(60):
            group, path = ("api", "/api/x") if number % 3 else ("default", "/x")
            body = bytes(number * 1500)
            client.send(head("POST", path, f"Content-Length: {len(body)}") + body)
            found = facts(client.receive())
            assert (found["group"], found["length"]) == (group, len(body))
            assert (found["mount"], found["path"]) == ("/api" if group == "api" else "", "/x")
        client.send(b"".join(head("GET", f"/api/{i}" if i % 2 else f"/{i}") for i in range(40)))
        answered = [facts(client.receive()) for _ in range(40)]
        assert [found["path"] for found in answered] == [f"/{i}" for i in range(40)]
        assert [found["group"] for found in answered] == ["default", "api"] * 20
        assert server.metric("poolsrv_group_switches_total") > 0


def test_a_group_has_the_folder_variables_and_mask_that_it_says(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    text = f'{TWO}umask = "0007"\nchdir = "{tmp_path}/own"\npythonpath = ["{ROOT}"]\nthreads = 1\n'
    with groups(tmp_path, text.replace("threads = 2\n", "", 1), umask="0022") as server:
        default, api = ask(server, "/"), ask(server, "/api")
        assert (default["umask"], default["folder"]) == (0o022, str(ROOT))
        assert (api["umask"], api["folder"]) == (0o007, str(tmp_path / "own"))
        assert (default["multithread"], api["multithread"]) == (True, False)
        titles = [
            Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
            for pid in (api["pid"], *server.templates())
        ]
        assert titles[0].startswith(("poolsrv: worker 0 of api", "poolsrv: worker 1 of api"))
        assert {title[:24] for title in titles[1:]} >= {"poolsrv: template 1 of a"}


def test_no_process_holds_a_descriptor_of_another_group(tmp_path: Path) -> None:
    """A worker of one user must not reach into the rows or the channels of another's."""

    def held(server: Server, path: str) -> dict[tuple[int, int], str]:
        found = {}
        for entry in Path(f"/proc/{ask(server, path)['pid']}/fd").iterdir():
            if (what := str(entry.readlink())).startswith(("/memfd:", "socket:")):
                found[entry.stat().st_dev, entry.stat().st_ino] = what
        return found

    with groups(tmp_path, TWO) as server:
        default, api = held(server, "/"), held(server, "/api")
        assert default
        assert not [what for which, what in default.items() if which in api]


def test_each_group_runs_as_its_user(tmp_path: Path) -> None:
    through = as_root()
    nobody = pwd.getpwnam("nobody").pw_uid
    daemon = pwd.getpwnam("daemon").pw_uid
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    text = TWO.replace("[group.api]", f'[group.api]\nuser = "{daemon}"')
    with groups(tmp_path, text, through=through, user=nobody) as server:
        assert (ask(server, "/")["uid"], ask(server, "/api")["uid"]) == (nobody, daemon)
        command(tmp_path, "reload", "api")
        assert (ask(server, "/")["uid"], ask(server, "/api")["uid"]) == (nobody, daemon)


# What a group keeps to itself


def test_a_group_whose_threads_all_sleep_leaves_the_other_alone(tmp_path: Path) -> None:
    with groups(tmp_path, TWO, graceful_timeout="1s", allow_errors="POOL") as server:
        sleepers = [Client(server.address) for _ in range(12)]
        for sleeper in sleepers:
            sleeper.send(head("GET", "/api/sleep"))
        server.wait_until(
            lambda: (
                {group["name"]: group["queue"]["length"] for group in server.status()["groups"]}
                == {"default": 0, "api": 8}
            )
        )
        with Client(server.address) as client:
            for _ in range(50):
                assert facts(client.get("/"))["group"] == "default"
        for sleeper in sleepers:
            sleeper.close()


def test_a_group_that_dies_again_and_again_leaves_the_other_alone(tmp_path: Path) -> None:
    with groups(tmp_path, TWO, allow_errors="POOL2") as server, Client(server.address) as client:
        before = facts(client.get("/"))["pid"]
        for _ in range(6):
            with Client(server.address) as victim:
                victim.send(head("GET", "/api/die"))
                victim.read_to_end()
            assert facts(client.get("/"))["pid"] == before
        server.wait_until(lambda: len(pids(server, "api")) == 2)
        assert pids(server, "default") == {before}
        restarts = "poolsrv_worker_restarts_total"
        assert server.metric(restarts, group="api") >= 6
        assert server.metric(restarts, group="default") == 0


def test_workers_are_killed_while_connections_alternate(tmp_path: Path) -> None:
    """Nothing is answered by the wrong group, and no more is lost than what was inside."""
    kills, clients = 4, 6
    with groups(tmp_path, TWO, allow_errors="POOL2") as server:
        stopped = threading.Event()
        wrong: list[object] = []
        cut = [0] * clients
        served = [0] * clients

        def visit(number: int) -> None:
            turn = number
            while not stopped.is_set():
                try:
                    with Client(server.address) as client:
                        while not stopped.is_set():
                            turn += 1
                            answer = client.get(("/x", "/api/x")[turn % 2])
                            if answer.status == 502:
                                cut[number] += 1
                                break
                            if facts(answer)["group"] != ("default", "api")[turn % 2]:
                                wrong.append(answer)
                            served[number] += 1
                except (Truncated, OSError):
                    cut[number] += 1
                except AssertionError as error:
                    wrong.append(error)
                    return

        def workers() -> set[int]:
            return pids(server, "api") | pids(server, "default")

        def serve_more() -> None:
            before = sum(served)
            server.wait_until(lambda: sum(served) > before + 100)

        visitors = [threading.Thread(target=visit, args=(number,)) for number in range(clients)]
        for visitor in visitors:
            visitor.start()
        for _ in range(kills):
            serve_more()
            before = workers()
            os.kill(min(before), signal.SIGKILL)
            server.wait_until(lambda before=before: workers() - before)
        serve_more()
        stopped.set()
        for visitor in visitors:
            visitor.join()
        assert wrong == []
        assert sum(cut) <= kills * clients


def test_a_reload_of_one_group_leaves_the_processes_of_the_other(tmp_path: Path) -> None:
    with groups(tmp_path, TWO) as server:
        before = {group: pids(server, group) for group in ("default", "api")}
        assert command(tmp_path, "reload", "api") == "generation 2 serves\n"
        assert pids(server, "default") == before["default"]
        assert not pids(server, "api") & before["api"]
        server.terminate(signal.SIGHUP)
        server.wait_until(lambda: not pids(server, "default") & before["default"])
        server.wait_until(lambda: server.log().count("has taken over") == 3)


def test_commands_are_for_a_group(tmp_path: Path) -> None:
    with groups(tmp_path, TWO, grows=True, max_processes=3) as server:
        assert "default/0" in (shown := command(tmp_path, "workers"))
        assert "api/0" in shown
        assert "api/0" not in command(tmp_path, "workers", "default")
        command(tmp_path, "scale", "default=3")
        assert (len(pids(server, "default")), len(pids(server, "api"))) == (3, 2)
        before = pids(server, "api")
        command(tmp_path, "recycle", "api/1")
        assert len(pids(server, "api") & before) == 1
        command(tmp_path, "recycle", "all")
        server.wait_until(lambda: not pids(server, "api") & before)
        assert "worker api/" in command(tmp_path, "stacks")
        assert "group api: 2 of 2 workers are ready" in command(tmp_path, "status")
        assert "GROUP=api" in command(tmp_path, "settings", "api")


def test_a_group_that_cannot_load_keeps_the_server_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "poolsrv.toml"
    file.write_text(
        TWO.replace(f'"/api"\napplication = "{APP}"', '"/api"\napplication = "nowhere:app"')
    )
    status, log = run_to_end("", tmp_path, config=file)
    assert status == 3
    assert "group api: " in log
    assert "nowhere" in log


# On demand


def test_a_group_on_demand_starts_with_a_request_and_ends_without(tmp_path: Path) -> None:
    text = f'{TWO}idle-timeout = "1s"\n'.replace("processes = 2", 'processes = "0..2"')
    with groups(tmp_path, text) as server:
        assert pids(server, "api") == set()
        assert len(server.templates()) == 1
        first = ask(server, "/api")
        assert first["group"] == "api"
        server.wait_until(lambda: first["pid"] not in server.pids())
        server.wait_until(lambda: len(server.templates()) == 1)
        assert ask(server, "/api")["pid"] != first["pid"]
        # While it sleeps, a reload is only noted.
        server.wait_until(lambda: len(server.templates()) == 1)
        assert "serves" in command(tmp_path, "reload", "api")
        assert pids(server, "api") == set()


def test_requests_that_wait_start_another_worker_of_a_group_on_demand(tmp_path: Path) -> None:
    text = TWO.replace("processes = 2", 'processes = "0..2"')
    text = text.replace("threads = 2\n", "threads = 1\n")
    options = {"graceful_timeout": "1s", "grows": True, "allow_errors": "POOL"}
    with groups(tmp_path, text, **options) as server, Client(server.address) as sleeper:
        sleeper.send(head("GET", "/api/sleep"))
        server.wait_until(lambda: len(pids(server, "api")) == 1)
        assert ask(server, "/api")["group"] == "api"  # by the second one
        assert len(pids(server, "api")) == 2


def test_of_many_groups_on_demand_those_that_are_visited_have_processes(tmp_path: Path) -> None:
    names = [f"site-{number}" for number in range(20)]
    text = f'application = "{APP}"\n'
    for name in names:
        text += f'[[mount]]\npath = "/{name}"\napplication = "{APP}"\ngroup = "{name}"\n'
    for name in names:
        text += f'[group.{name}]\nprocesses = "0..1"\nenvironment = {{ GROUP = "{name}" }}\n'
    with groups(tmp_path, text, grows=True) as server:
        for name in ("site-3", "site-11", "site-19"):
            assert ask(server, f"/{name}/x")["group"] == name
        running = {
            group["name"] for group in server.status()["groups"] if group["threads"]["total"]
        }
        assert running == {"default", "site-3", "site-11", "site-19"}
        assert len(server.templates()) == 4


# The whole server


def test_a_stop_under_load_answers_all_groups(tmp_path: Path) -> None:
    with groups(tmp_path, TWO, graceful_timeout="10s") as server:
        stopped = threading.Event()
        lost: list[object] = []
        served = [0, 0]

        def visit(number: int) -> None:
            path = ("/x", "/api/x")[number % 2]
            while not stopped.is_set():
                try:
                    with Client(server.address) as client:
                        for _ in range(5):
                            answer = client.get(path)
                            served[number % 2] += 1
                            if answer.status != 200 or answer.get("Connection") == "close":
                                break
                except (ConnectionRefusedError, TimeoutError):
                    return
                except (AssertionError, OSError) as error:
                    lost.append(error)
                    return

        visitors = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
        for visitor in visitors:
            visitor.start()
        server.wait_until(lambda: min(served) > 20)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 10
        stopped.set()
        for visitor in visitors:
            visitor.join()
        assert lost == []


def test_an_upgrade_takes_every_group_along(tmp_path: Path) -> None:
    on_demand = TWO + '[group.late]\nprocesses = "0..1"\n'
    on_demand = on_demand.replace(
        "[group.api]",
        f'[[mount]]\npath = "/late"\napplication = "{APP}"\ngroup = "late"\n[group.api]',
    )
    with groups(tmp_path, on_demand, grows=True) as server, Client(server.address) as client:
        assert facts(client.get("/api"))["group"] == "api"
        client.get("/")
        answered = server.metric("poolsrv_requests_total", group="api")
        before = pids(server, "default") | pids(server, "api")
        told = json.loads(command(tmp_path, "upgrade", "--json"))
        server.follow(told["pid"])
        assert not (pids(server, "default") | pids(server, "api")) & before
        assert facts(client.get("/api"))["group"] == "api"
        assert facts(client.get("/"))["group"] == "default"
        assert ask(server, "/late")["pid"] not in before
        assert server.metric("poolsrv_requests_total", group="api") > answered


def test_an_upgrade_with_another_set_of_groups(tmp_path: Path) -> None:
    with groups(tmp_path, TWO) as server:
        text = TWO.replace("api", "web")
        (tmp_path / "poolsrv.toml").write_text(text)
        with Client(server.address) as client:
            assert facts(client.get("/api"))["group"] == "api"
            told = json.loads(command(tmp_path, "upgrade", "--json"))
            server.follow(told["pid"])
        assert ask(server, "/web")["group"] == "web"
        assert ask(server, "/api")["group"] == "default"


# What strangers have met


SLOW_TO_LOAD = """
import time
time.sleep({load})
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

ASLEEP = """
application = "tests.apps.grouped:app"
[[mount]]
path = "/late"
group = "late"
application = "{folder}/late.wsgi"
[group.late]
processes = "0..2"
"""


def test_a_stop_answers_who_waits_for_a_group_that_starts(tmp_path: Path) -> None:
    """Nobody will serve it: it is told so, and nobody waits for it."""
    (tmp_path / "late.wsgi").write_text(SLOW_TO_LOAD.format(load=60))
    text = ASLEEP.format(folder=tmp_path)
    with groups(tmp_path, text) as server, Client(server.address) as client:
        client.send(head("GET", "/late"))
        server.wait_until(lambda: "POOL418" in server.log())
        assert "0..2 processes x 2 threads group=late" in server.log()
        began = time.monotonic()
        assert server.stop() == 0
        assert client.receive().status == 503
        assert time.monotonic() - began < 20  # of --graceful-timeout's 30


def test_a_reload_of_one_group_names_it(tmp_path: Path) -> None:
    with groups(tmp_path, TWO) as server:
        command(tmp_path, "reload", "api")
        command(tmp_path, "reload")
        told = [line for line in server.log().splitlines() if "POOL402" in line]
        assert ["group=api" in line for line in told] == [True, False]
