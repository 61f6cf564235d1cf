"""What a run found, for people: a table in Markdown and a plot."""

from loadtests._bench import _svg
from loadtests._bench._figures import Key, Row, Spread, rows
from loadtests._bench._run import Results
from loadtests._bench._workloads import WORKLOADS

_COLUMNS = (
    "server",
    "shape",
    "requests/CPU s",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "errors",
    "timeouts",
    "cores",
    "MiB",
    "rounds",
)


def markdown(results: Results) -> str:
    machine = results.machine
    found, failed = rows(results.cells)
    lines = [
        "# Servers side by side",
        "",
        f"{machine['date']}: {machine['cpus']} CPUs ({machine['model']}), Linux"
        f" {machine['kernel']}, Python {machine['python']}, {machine['wrk']} on the same machine."
        f" Rounds: {results.rounds}, of {results.duration} s for each cell, servers in turn within"
        " each; figures are medians of the rounds, in parentheses the least and the most.",
        "",
        "A CPU second is one of the server's whole process tree. Requests per second depend on"
        " the client as well, which takes its share of the cores; requests per CPU second do not."
        " *Shape* is processes x threads; 1x1 has a core of its own. Memory is the tree's PSS.",
    ]
    lines += _overview(results, found)
    for key in dict.fromkeys((key.workload, key.asked) for key in (*found, *failed)):
        workload, asked = key
        here = {k.server: row for k, row in found.items() if (k.workload, k.asked) == key}
        lines += ["", f"## {workload}, {asked}: {WORKLOADS[workload].shows}", ""]
        lines += [_joined(_COLUMNS), _joined(["---"] + ["--:"] * (len(_COLUMNS) - 1))]
        best = sorted(here, key=lambda server: here[server].throughput.median, reverse=True)
        lines += [_joined(_cells(server, here[server])) for server in best]
        lines += _notes(here)
        lines += [
            f"\n{k.server} failed: {reasons[0]}"
            for k, reasons in failed.items()
            if (k.workload, k.asked) == key
        ]
    lines += ["", "## What was run", ""]
    lines += [
        f"- {name} {server['version']}: `{server['command']}`"
        for name, server in results.servers.items()
    ]
    lines += [f"- without {name}: {reason}" for name, reason in results.skipped.items()]
    disturbed = [row.elsewhere for row in found.values()]
    if disturbed and max(disturbed) > _DISTURBED:
        lines += [
            "",
            f"Others on the machine took up to {max(disturbed):.2f} cores meanwhile:"
            " these figures are not to be quoted.",
        ]
    return "\n".join(lines) + "\n"


def _overview(results: Results, found: dict[Key, Row]) -> list[str]:
    """The table of the README: requests per CPU second, the best of each line in bold."""
    names = list(results.servers)
    lines = ["", "## Requests per CPU second", ""]
    lines += [_joined(["workload", "shape", *names]), _joined(["---"] * 2 + ["--:"] * len(names))]
    for workload, asked in dict.fromkeys((key.workload, key.asked) for key in found):
        here = {k.server: row for k, row in found.items() if k[:2] == (workload, asked)}
        best = max(here, key=lambda server: here[server].per_cpu.median)
        cells = [
            f"{'**' * (name == best)}{here[name].per_cpu.median:,.0f}{'**' * (name == best)}"
            if name in here
            else ""
            for name in names
        ]
        lines.append(_joined([WORKLOADS[workload].shows, asked, *cells]))
    return lines


# Cores. wrk and the kernel's own work account for less.
_DISTURBED = 0.25


def _cells(server: str, row: Row) -> list[str]:
    return [
        server,
        row.shape,
        _spread(row.per_cpu),
        _spread(row.rate),
        *(f"{1000 * row.latency[quantile]:.2f}" for quantile in ("50", "99", "99.9")),
        str(row.errors),
        str(row.timeouts),
        f"{row.cores:.2f} + {row.client_cores:.2f}",
        f"{row.memory / 2**20:.1f}",
        str(row.rounds),
    ]


def _notes(here: dict[str, Row]) -> list[str]:
    notes = []
    for server, row in here.items():
        if row.of_ideal is not None:
            notes.append(f"{server} reaches {row.of_ideal:.1%} of the ideal.")
        if row.apart:
            classes = ", ".join(f"{name} {1000 * p99:.2f} ms" for name, p99 in row.apart.items())
            notes.append(f"{server}'s p99: {classes}.")
        if row.idle is not None and row.memory_per_idle is not None:
            notes.append(
                f"{server} kept {row.idle} idle connections open,"
                f" {row.memory_per_idle / 1024:.2f} KiB each."
            )
        if row.failures:
            notes.append(f"{server} failed {len(row.failures)} times: {row.failures[0]}")
    return ["", *(f"- {note}" for note in notes)] if notes else []


def _spread(spread: Spread) -> str:
    return f"{spread.median:,.0f} ({_svg.short(spread.low)}-{_svg.short(spread.high)})"


def _joined(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(results: Results) -> str:
    """For each workload and shape the throughput, and the latency by quantile. SVG.

    Empty if every cell failed."""
    found, _ = rows(results.cells)
    panels: list[_svg.Panel] = []
    for workload, asked in dict.fromkeys((key.workload, key.asked) for key in found):
        here = {k.server: row for k, row in found.items() if k[:2] == (workload, asked)}
        panels.append(
            _svg.Bars(
                f"{workload}, {asked}",
                "requests per second"
                if WORKLOADS[workload].blocks
                else "requests per CPU second of the server",
                [
                    _svg.Bar(name, bar.median, bar.low, bar.high)
                    for name, bar in ((name, row.throughput) for name, row in here.items())
                ],
            )
        )
        quantiles = list(next(iter(here.values())).latency)
        panels.append(
            _svg.Lines(
                f"{workload}, {asked}",
                "percentile",
                "latency, ms",
                [(place, text) for place, text in enumerate(quantiles)],
                [
                    _svg.Line(
                        name,
                        # wrk counts whole microseconds.
                        [(i, 1000 * max(row.latency[q], 1e-6)) for i, q in enumerate(quantiles)],
                    )
                    for name, row in here.items()
                ],
            )
        )
    return _svg.page("Servers side by side", panels, columns=4) if panels else ""
