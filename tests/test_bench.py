"""The bench: what it makes of figures, and one short run of it. No figure is judged here."""

import ast
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtests._bench import _cell, _files, _instructions, _processes, _report, _servers, _svg, _wrk
from loadtests._bench._cell import Cell
from loadtests._bench._figures import Key, Spread, rows
from loadtests._bench._instructions import Count
from loadtests._bench._model import Request
from loadtests._bench._prediction import send
from loadtests._bench._run import Results
from loadtests._bench._servers import OURS, PEERS, Failed, Server
from loadtests._bench._workloads import WORKLOADS, Shape, Workload
from poolsrv.worker.main import Job
from tests import server as running
from tests.server import ROOT, processes
from tests.waiting import wait_until

pytestmark = pytest.mark.once

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk: apt-get install wrk")

QUANTILES = {f"{quantile:g}": 0.001 * (i + 1) for i, quantile in enumerate(_wrk.QUANTILES)}


def cell(**changes: object) -> Cell:
    usual = Cell(
        server="poolsrv",
        workload="hello",
        shape="2x4",
        asked="2x4",
        round=1,
        requests=1000,
        duration=2.0,
        quantiles=QUANTILES,
        cpu=0.5,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def results(*cells: Cell) -> Results:
    machine = {"date": "then", "cpus": 2, "model": "<x>", "kernel": "6", "python": "3", "wrk": "w"}
    servers = {name: {"command": "c", "version": "1"} for name in {one.server for one in cells}}
    return Results(machine, 2, 3, servers, {"other": "pip install other"}, list(cells))


# What is asked, and who


@pytest.mark.parametrize("text", ["2", "x", "2x", "x4", "-1x4", "2x4x8", "axb"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not PROCESSESxTHREADS"):
        Shape.parse(text)


def test_a_shape_is_read_as_it_is_written() -> None:
    assert Shape.parse("2x16") == (2, 16)
    assert str(Shape(2, 16)) == "2x16"


def test_a_command_is_filled_in_word_by_word() -> None:
    server = Server.parse("mine={python} -m 'my server' {app} --bind {host}:{port}")
    assert server.name == "mine"
    argv = server.argv(python=Path("/a b/python"), app="m:c", host="h", port=1)
    assert argv == ["/a b/python", "-m", "my server", "m:c", "--bind", "h:1"]


@pytest.mark.parametrize("text", ["", "mine", "=command", "mine=", "mine={prot}"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not NAME=COMMAND|there is no \{prot\}"):
        Server.parse(text)


def test_a_command_without_threads_is_shown_with_one() -> None:
    assert Server("a", "a {processes}").shape(Shape(2, 4)) == (2, 1)
    assert OURS.shape(Shape(2, 4)) == (2, 4)


@pytest.mark.parametrize("server", [OURS, *PEERS], ids=lambda server: server.name)
def test_every_known_command_can_be_filled_in(server: Server) -> None:
    values = dict.fromkeys(_servers.FIELDS, "x")
    assert "{" not in "".join(server.argv(**values))


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_every_workload_has_an_application_and_a_script(workload: Workload) -> None:
    module = importlib.util.find_spec(workload.module)
    assert module is not None
    assert (Path(_wrk.__file__).parent / workload.script).is_file()
    with _cell.surroundings():
        answer = _cell.answer(workload)
    # The mixed one sends back what it is asked, and that is nothing here.
    assert bool(answer) == (workload.name != "mixed")


def test_the_ideal_of_those_who_sleep() -> None:
    assert WORKLOADS["sleep"].ideal(Shape(2, 16)) == pytest.approx(3200)
    assert WORKLOADS["hello"].ideal(Shape(2, 16)) is None


def test_locust_takes_none_of_these_files_for_its_own() -> None:
    assert all(path.name.startswith("_") for path in Path(_cell.__file__).parent.glob("**/*.py"))


# What observation costs


def test_a_core_that_observes_nothing_serves(tmp_path: Path) -> None:
    package = _instructions.build("unobserved", tmp_path / "package")
    with _instructions.worker(package, []) as client:
        _instructions.ask(client, 100)


def test_the_cost_is_a_share_of_what_goes_without() -> None:
    table = _instructions.markdown([Count("release", 10, 10200.4), Count("unobserved", 10, 10000)])
    assert "| release | 10,200 |" in table
    assert "| difference | 200, 2.0% |" in table


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"(?s)build other: .*KeyError: 'other'"):
        _instructions.build("other", tmp_path / "package")


# What comes back

REPORTED = (
    "Running 1s test\n"
    'JSON {"requests":110,"duration":2000000,"bytes":9,"quantiles":{"50":250,"99":4000},'
    '"connect":1,"read":2,"write":3,"status":10,"timeout":5,'
    '"hello":[[1000.0,98],[9000.0,2]],"sleep":[]}\n'
)


def test_what_wrk_reports_is_read() -> None:
    load = _wrk.parse(REPORTED, client_cpu=0.25)
    assert (load.requests, load.duration, load.client_cpu) == (100, 2.0, 0.25)
    assert load.quantiles == pytest.approx({"50": 0.00025, "99": 0.004})
    assert (load.errors, load.timeouts) == (16, 5)
    assert load.apart.keys() == {"hello"}
    assert load.apart["hello"]["50"] == pytest.approx(0.001)
    assert load.apart["hello"]["99"] == pytest.approx(0.009)


def test_a_wrk_that_reports_nothing_has_failed() -> None:
    with pytest.raises(Failed, match="unable to connect"):
        _wrk.parse("unable to connect to 127.0.0.1:1\n", client_cpu=0)


def test_quantiles_of_a_histogram() -> None:
    found = _wrk.histogram_quantiles([(30.0, 1), (10.0, 50), (20.0, 49)])
    assert found["50"] == pytest.approx(10e-6)
    assert found["90"] == found["99"] == pytest.approx(20e-6)
    assert found["99.9"] == pytest.approx(30e-6)


# What it comes to


def test_median_and_bounds() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([4, 1]) == Spread(2.5, 1, 4)


def test_rounds_come_to_a_row() -> None:
    found, failed = rows([cell(round=i, requests=1000 * i, errors=1) for i in (1, 2, 3)])
    assert not failed
    row = found[Key("hello", "2x4", "poolsrv")]
    assert row.rounds == 3
    assert row.rate == Spread(1000, 500, 1500)
    assert row.per_cpu == Spread(4000, 2000, 6000)
    assert row.errors == 3
    assert row.latency == QUANTILES
    assert row.of_ideal is None
    assert row.idle is None


def test_a_round_that_failed_is_told_and_not_counted() -> None:
    found, failed = rows([cell(), cell(failed="died"), cell(server="other", failed="no")])
    assert found[Key("hello", "2x4", "poolsrv")].failures == ["died"]
    assert found[Key("hello", "2x4", "poolsrv")].rounds == 1
    assert failed == {Key("hello", "2x4", "other"): ["no"]}


def test_the_latency_of_a_mix_is_that_of_its_hellos() -> None:
    apart = {"hello": dict.fromkeys(QUANTILES, 0.5), "sleep": dict.fromkeys(QUANTILES, 9.0)}
    (row,) = rows([cell(workload="mixed", apart=apart)])[0].values()
    assert set(row.latency.values()) == {0.5}
    assert row.apart == {"hello": 0.5, "sleep": 9.0}


def test_a_server_that_used_no_tick_of_cpu_is_not_infinitely_fast() -> None:
    assert cell(cpu=0.0).per_cpu == 1000 / _processes.TICK


def test_the_table_has_every_server_and_every_remark() -> None:
    table = _report.markdown(
        results(
            cell(),
            cell(server="beside", shape="2x1", cpu=1.0),
            cell(workload="sleep", shape="2x16", asked="2x16"),
            cell(workload="crowd", idle=1999, memory_per_idle=2048),
            cell(server="beside", workload="crowd", failed="no request was answered in 2 s"),
        )
    )
    assert "| poolsrv | 2x4 | 2,000 (2k-2k) | 500 (500-500) |" in table
    assert table.index("| poolsrv | 2x4 | 2,000") < table.index("| beside | 2x1 | 1,000")
    assert "poolsrv reaches 15.6% of the ideal." in table
    assert "poolsrv kept 1999 idle connections open, 2.00 KiB each." in table
    assert "beside failed: no request was answered in 2 s" in table
    assert "without other: pip install other" in table
    assert "not to be quoted" not in table
    assert "not to be quoted" in _report.markdown(results(cell(elsewhere=0.5)))


def test_the_plot_is_svg_with_two_panels_for_each_workload() -> None:
    drawing = _report.plot(results(cell(), cell(server="a<b"), cell(workload="json")))
    root = ElementTree.fromstring(drawing)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall("{*}g")) == 4
    assert len(root.findall(".//{*}polyline")) == 3
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a<b" in texts


def test_one_name_has_one_colour() -> None:
    lines = [_svg.Line(name, [(0, 1), (1, 10)]) for name in ("first", "second")]
    panels = [
        _svg.Lines("t", "x", "y", [(0, "0"), (1, "1")], chosen) for chosen in (lines, lines[1:])
    ]
    strokes = [
        line.get("stroke")
        for line in ElementTree.fromstring(_svg.page("p", panels, 2)).iter()
        if line.tag.endswith("polyline")
    ]
    # The first of a panel is drawn last.
    assert strokes[0] == strokes[2] != strokes[1]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = results(cell(), cell(failed="died"))
    written.save(tmp_path / "folder" / "bench.json")
    assert Results.load(tmp_path / "folder" / "bench.json") == written


def test_another_file_is_no_results(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text('{"cells": [], "colour": 1}')
    with pytest.raises(ValueError, match="is not of this bench"):
        Results.load(tmp_path / "bench.json")


# The processes of a server

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\nprint('up', flush=True)\\nsignal.pause()"])
child.wait()
"""


def test_a_tree_is_found_and_ended_orphans_included() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True
    ) as family:
        assert family.stdout is not None
        assert family.stdout.readline() == b"up\n"
        tree = _processes.tree(family.pid)
        assert len(tree) == 2
        assert family.pid in tree
        assert _processes.cpu_seconds(family.pid) >= 0
        assert _processes.memory(family.pid) > 2**20
        # The parent obeys at once and leaves an orphan that does not.
        _processes.end(family)
        wait_until(
            lambda: not [p for p in processes() if p.session == family.pid and not p.is_zombie]
        )


# Against a real server


def test_an_open_loop_client_gets_every_answer(server: Callable[..., running.Server]) -> None:
    timed = server("loadtests._bench._apps:timed", processes=1, threads=4)
    coming = [Request(0.001 * i, 0.002) for i in range(20)]
    sent = send(timed.address[1], coming)
    assert len(sent) == len(coming)
    assert all(request.response >= request.service for request in sent)


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtests._bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_wrk
def test_a_short_run(tmp_path: Path) -> None:
    out = tmp_path / "bench"
    limits = ["--rounds", "1", "--duration", "1", "--warmup", "0", "--shape", "1x2"]
    chosen = ["--servers", "poolsrv", "--workload", "new", "--workload", "mixed"]
    broken = ["--server", "broken={python} -c 1"]
    done = bench("run", *limits, *chosen, *broken, "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = Results.load(out.with_suffix(".json"))
    assert [(one.server, one.workload, one.shape) for one in found.cells] == [
        ("poolsrv", "new", "1x2"),
        ("broken", "new", "1x1"),
        ("poolsrv", "mixed", "1x2"),
        ("broken", "mixed", "1x1"),
    ]
    for one in found.cells[::2]:
        assert one.failed is None, one.failed
        assert one.requests > 0
        assert one.errors == 0
        assert one.quantiles.keys() == QUANTILES.keys()
        assert one.memory > 0
    assert found.cells[0].apart.keys() == {"kept", "new"}
    assert found.cells[2].apart.keys() == {"hello", "sleep"}
    for one in found.cells[1::2]:
        assert one.failed is not None
        assert one.failed.startswith("exit status 0")
    assert "## mixed, 1x2" in done.stdout
    assert done.stdout.rstrip() == out.with_suffix(".md").read_text().rstrip()
    ElementTree.fromstring(out.with_suffix(".svg").read_text())
    again = bench("report", "--out", str(out))
    assert again.stdout == done.stdout


@needs_wrk
@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_what_files_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "SIZES", {"4 KiB": 4096})
    costs = _files.measure(1, lambda text: None)
    assert all(cost.requests > 0 for sizes in costs.values() for cost in sizes.values())
    rows = [line.split()[1] for line in _files.markdown(costs).splitlines()[-2:]]
    assert rows == ["poolsrv", "nginx"]


@needs_wrk
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "loadtests._bench", "run", "--servers", "poolsrv"]
    command += ["--workload", "hello", "--duration", "60", "--out", str(tmp_path / "bench")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:

        def children() -> list[int]:
            return [p.pid for p in processes() if p.parent == process.pid]

        try:
            # The server, and wrk.
            sessions = wait_until(lambda: started if len(started := children()) == 2 else None, 30)
            process.send_signal(number)
            assert process.wait(30) == 130
            wait_until(
                lambda: not [p for p in processes() if p.session in sessions and not p.is_zombie]
            )
        finally:
            process.kill()


@needs_wrk
def test_a_server_that_is_not_installed_is_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("bjoern"):
        pytest.skip("it is installed")
    done = bench("run", "--servers", "bjoern", "--out", str(tmp_path / "bench"))
    assert done.returncode == 2
    assert "no server is installed: bjoern: pip install bjoern" in done.stderr


@pytest.mark.parametrize(("command", "program"), [("run", "wrk"), ("instructions", "valgrind")])
def test_a_missing_program_is_named(tmp_path: Path, command: str, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests._bench", command],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == f"{program} is missing: apt-get install {program}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "2"], "'2' is not PROCESSESxTHREADS"),
        (["--rounds", "0"], "'0' is not a whole number from 1"),
        (["--server", "x={prot}"], "there is no {prot}"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], message: str) -> None:
    done = bench("run", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_no_results_are_told(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps([]))
    done = bench("report", "--out", str(tmp_path / "bench"))
    assert done.returncode == 2
    assert "no results" in done.stderr


def test_the_worker_that_is_counted_is_given_all_that_a_worker_has() -> None:
    """It needs valgrind to run; that it names every field needs nothing."""
    tree = ast.parse((ROOT / "loadtests" / "_bench" / "_worker.py").read_text())
    (job,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Job"
    )
    given = {keyword.arg for keyword in job.keywords}
    assert given == {field.name for field in fields(Job)}
