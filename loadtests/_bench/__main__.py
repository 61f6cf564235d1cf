"""The commands of the bench; `python -m loadtests._bench COMMAND --help`."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from loadtests import _chaos
from loadtests._bench import (
    _curves,
    _deploys,
    _files,
    _groups,
    _instructions,
    _newcomer,
    _pages,
    _pinned,
    _prediction,
    _report,
    _run,
)
from loadtests._bench._run import Plan, Results
from loadtests._bench._servers import OURS, PEERS, Failed, Missing, Server
from loadtests._bench._workloads import WORKLOADS, Shape


def main() -> int:
    arguments = _parser().parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        arguments.command(arguments)
    except (Failed, Missing) as reason:
        print(reason, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was measured until then is kept", file=sys.stderr)
        return 130
    return 0


def _interrupt(_number: int, _frame: object) -> None:
    """Ends what was started, by `finally`; that takes seconds, and is not interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run_command(arguments: argparse.Namespace) -> None:
    plan = Plan(
        workloads=[WORKLOADS[name] for name in arguments.workload or WORKLOADS],
        shapes=arguments.shape,
        names=arguments.servers,
        more=arguments.server,
        peers=arguments.peers,
        duration=arguments.duration,
        warmup=arguments.warmup,
        rounds=arguments.rounds,
    )
    results = _run.run(plan, lambda found: found.save(arguments.out.with_suffix(".json")), _tell)
    _write(results, arguments.out)


def _report_command(arguments: argparse.Namespace) -> None:
    try:
        results = Results.load(arguments.out.with_suffix(".json"))
    except (OSError, ValueError) as error:
        raise Missing(f"no results: {error}") from None
    _write(results, arguments.out)


def _simulate_command(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    cases = arguments.case or list(_curves.CASES)
    points = list(_curves.curves(cases, arguments.requests, arguments.seed, _tell))
    table = _curves.markdown(points, arguments.requests, arguments.seed)
    print(table)
    out.with_suffix(".md").write_text(table)
    out.with_suffix(".json").write_text(json.dumps([asdict(point) for point in points]) + "\n")
    for case in cases:
        out.with_name(f"{out.name}-{case}.svg").write_text(_curves.plot(points, case))
    _tell(f"written: {out}.json, {out}.md, {out}-CASE.svg")


def _predict_command(arguments: argparse.Namespace) -> None:
    checks = _prediction.check(
        Path(sys.executable), arguments.shape, arguments.duration, arguments.seed, _tell
    )
    print(_prediction.markdown(checks, arguments.shape))


def _instructions_command(arguments: argparse.Namespace) -> None:
    print(_instructions.markdown(_instructions.measure(arguments.requests, _tell)))


def _files_command(arguments: argparse.Namespace) -> None:
    print(_files.markdown(_files.measure(arguments.rounds, _tell)))


def _groups_command(arguments: argparse.Namespace) -> None:
    print(_groups.markdown(*_groups.measure(arguments.rounds, _tell)))


def _pages_command(arguments: argparse.Namespace) -> None:
    shape = arguments.shape
    print(_pages.markdown(_pages.measure(shape, arguments.rounds, _tell), shape))


def _pinned_command(arguments: argparse.Namespace) -> None:
    print(_pinned.markdown(_pinned.measure(arguments.rounds, arguments.seed, _tell)))


def _deploys_command(arguments: argparse.Namespace) -> None:
    kinds = [_deploys.KINDS[name] for name in arguments.only or _deploys.KINDS]
    costs = _deploys.measure(kinds, arguments.count, arguments.duration, arguments.seed, _tell)
    print(_deploys.markdown(costs))


def _newcomer_command(arguments: argparse.Namespace) -> None:
    print(_newcomer.markdown(_newcomer.measure(arguments.wheel, _tell)))


def _chaos_command(arguments: argparse.Namespace) -> None:
    if not _chaos.run(arguments.duration, arguments.seed):
        raise Failed("not all was whole afterwards")


def _write(results: Results, out: Path) -> None:
    table = _report.markdown(results)
    out.with_suffix(".md").write_text(table)
    out.with_suffix(".svg").write_text(_report.plot(results))
    print(table)
    _tell(f"written: {out}.json, {out}.md, {out}.svg")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests._bench")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="measure servers side by side under wrk")
    run.set_defaults(command=_run_command)
    known = ", ".join(server.name for server in (OURS, *PEERS))
    run.add_argument(
        "--servers",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help=f"of {known} (default: ours, and every other that is installed)",
    )
    run.add_argument(
        "--server",
        type=_argument(Server.parse),
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="one more; {app} {host} {port} {processes} {threads} are filled in, and"
        " {module} {callable} {python} {bin} {folder}",
    )
    run.add_argument(
        "--peers",
        type=Path,
        default=Path(sys.executable),
        metavar="PYTHON",
        help="the interpreter in whose environment the others are (default: this one)",
    )
    run.add_argument(
        "--workload",
        action="append",
        choices=WORKLOADS,
        help="repeatable (default: all)",
    )
    run.add_argument(
        "--shape",
        type=_argument(Shape.parse),
        action="append",
        metavar="PxT",
        help="processes x threads; repeatable (default: as fits the workload)",
    )
    run.add_argument("--rounds", type=_whole(1), default=3, metavar="N", help="default: 3")
    run.add_argument("--duration", type=_whole(1), default=5, metavar="S", help="default: 5")
    run.add_argument("--warmup", type=_whole(0), default=1, metavar="S", help="default: 1")

    report = commands.add_parser("report", help="write table and plot of a run again")
    report.set_defaults(command=_report_command)

    simulate = commands.add_parser("simulate", help="policies side by side in the model")
    simulate.set_defaults(command=_simulate_command)
    simulate.add_argument(
        "--case", action="append", choices=_curves.CASES, help="repeatable (default: all)"
    )
    simulate.add_argument(
        "--requests",
        type=_whole(1),
        default=20000,
        metavar="N",
        help="for each point of a curve (default: %(default)s)",
    )

    predict = commands.add_parser("predict", help="our server beside the model")
    predict.set_defaults(command=_predict_command)
    predict.add_argument(
        "--shape",
        type=_argument(Shape.parse),
        default=Shape(2, 4),
        metavar="PxT",
        help="default: 2x4",
    )
    predict.add_argument(
        "--duration",
        type=_whole(1),
        default=10,
        metavar="S",
        help="of each of the eight measurements (default: %(default)s)",
    )

    instructions = commands.add_parser("instructions", help="what observation costs, by callgrind")
    instructions.set_defaults(command=_instructions_command)
    instructions.add_argument(
        "--requests",
        type=_whole(1),
        default=10000,
        metavar="N",
        help="of each build (default: %(default)s)",
    )

    files = commands.add_parser("files", help="what a file costs, beside nginx")
    files.set_defaults(command=_files_command)
    files.add_argument(
        "--rounds",
        type=_whole(1),
        default=5,
        metavar="N",
        help="of a second for each server and size (default: %(default)s)",
    )

    groups = commands.add_parser("groups", help="what groups cost, and do to one another")
    groups.set_defaults(command=_groups_command)
    groups.add_argument(
        "--rounds",
        type=_whole(1),
        default=5,
        metavar="N",
        help="of a second for each load (default: %(default)s)",
    )

    pages = commands.add_parser("pages", help="CPU of pages, by connections that ask at once")
    pages.set_defaults(command=_pages_command)
    pages.add_argument(
        "--shape",
        type=_argument(Shape.parse),
        default=Shape(2, 4),
        metavar="PxT",
        help="default: 2x4",
    )
    pages.add_argument("--rounds", type=_whole(1), default=3, metavar="N", help="default: 3")

    pinned = commands.add_parser(
        "pinned", help="what waits behind a pinned worker, beside a free one"
    )
    pinned.set_defaults(command=_pinned_command)
    pinned.add_argument(
        "--rounds",
        type=_whole(1),
        default=20,
        metavar="N",
        help="for each number of connections (default: %(default)s)",
    )

    newcomer = commands.add_parser("newcomer", help="how long the first answer takes somebody new")
    newcomer.set_defaults(command=_newcomer_command)
    newcomer.add_argument(
        "--wheel", type=Path, metavar="FILE", help="install this one as well (make wheel)"
    )

    deploys = commands.add_parser("deploys", help="what reloads and kills cost clients")
    deploys.set_defaults(command=_deploys_command)
    deploys.add_argument(
        "--count",
        type=_whole(1),
        default=20,
        metavar="N",
        help="of reloads, and of kills (default: %(default)s)",
    )
    deploys.add_argument(
        "--duration",
        type=_whole(1),
        default=60,
        metavar="S",
        help="over which each are spread (default: %(default)s)",
    )

    deploys.add_argument(
        "--only",
        action="append",
        choices=_deploys.KINDS,
        help="of what happens; may be given several times (default: all)",
    )

    chaos = commands.add_parser(
        "chaos", help="does a server stay whole while its processes are killed and replaced?"
    )
    chaos.set_defaults(command=_chaos_command)
    chaos.add_argument(
        "--duration", type=_whole(1), default=120, metavar="S", help="default: %(default)s"
    )

    for command, name in ((run, "bench"), (report, "bench"), (simulate, "simulation")):
        command.add_argument(
            "--out",
            type=Path,
            default=Path("build", name),
            metavar="PATH",
            help="of the results, without suffix (default: %(default)s)",
        )
    for command in (simulate, predict, pinned, deploys, chaos):
        command.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    return parser


Value = TypeVar("Value")


def _argument(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """The same, but argparse shows what its ValueError says."""

    def parsed(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return _argument(parse)


if __name__ == "__main__":
    sys.exit(main())
