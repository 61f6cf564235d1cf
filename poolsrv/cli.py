"""The commands of poolsrv, and the one place that turns an error into an exit status.

Knows options only as config.Settings. What a command needs is imported when it
runs, so that help, version and mistakes answer at once.
"""

import os
import sys
import textwrap
from typing import TYPE_CHECKING, NoReturn

from cyclopts import App
from cyclopts.exceptions import CycloptsError, UnusedCliTokensError

from poolsrv._version import __version__
from poolsrv.errors import ConfigError, PoolsrvError
from poolsrv.settings.kinds import Sources
from poolsrv.settings.rows import DEFAULTS, Given, report

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

# The first column of the help. Most options fit into it; a longer one has a line
# of its own, so that the second column stays wide enough to read at 80 columns.
_LABELS = 29
_WIDTH = 100

# How messages name the one argument that has no flag.
_APPLICATION = "APP"


def main() -> NoReturn:
    """The console script. Exits with 0, the status of a PoolsrvError, or the server's."""
    try:
        sys.exit(_run(sys.argv[1:]))
    except PoolsrvError as error:
        print(f"poolsrv: error: {error}", file=sys.stderr)
        sys.exit(error.status)


def _run(arguments: list[str]) -> int:
    try:
        status: int = _commands()(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        return status
    except UnusedCliTokensError as error:
        extra = " ".join(error.unused_tokens or ())
        raise ConfigError(f"{extra}: unexpected; there is one application to serve") from None
    except CycloptsError as error:
        raise ConfigError(str(error)) from None


def _commands() -> App:
    sources = Sources(os.environ)
    app = App(
        name="poolsrv",
        version=f"poolsrv {__version__}",
        usage="Usage: poolsrv COMMAND",
        help="Serves WSGI applications with processes x threads, and shows how they do.",
        help_format="plaintext",
        help_formatter=_print_panel,
    )

    @app.command(config=[sources], sort_key=1, usage="Usage: poolsrv serve APP [OPTIONS]")
    def serve(settings: Given = DEFAULTS) -> int:
        """Serve an application until a signal ends it.

        SIGTERM and SIGINT let running requests finish; a second one ends them.
        Exit status: 2 for bad options, 3 if the application cannot be loaded, 4 if
        an address cannot be bound. Each option may also stand in the environment
        (POOLSRV_THREADS=8) and in poolsrv.toml (threads = 8).
        """
        if not settings.application:
            raise ConfigError("APP is missing: give the application, as in poolsrv serve app:app")
        from poolsrv.launcher import launch

        return launch(settings)

    @app.command(config=[sources], sort_key=2, usage="Usage: poolsrv config [APP] [OPTIONS]")
    def config(settings: Given = DEFAULTS) -> int:
        """Show each option as serve would use it, and where its value comes from."""
        print(report(settings, sources))
        return 0

    return app


def _print_panel(console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
    """One group of the help: two columns without boxes, defaults in brackets."""
    if not panel.entries:
        return
    lines = [f"{panel.title}:"]
    for entry in panel.entries:
        names = [_APPLICATION] if entry.positional_label else entry.display_labels_with_metavar
        label = "  " + ", ".join(names)
        meaning = f"{entry.description.primary_renderable}"
        if entry.default:
            meaning += f" [{entry.default}]"
        wrapped = textwrap.wrap(meaning, min(options.max_width, _WIDTH) - _LABELS)
        if len(label) >= _LABELS:
            lines.append(label)
            label = ""
        for part in wrapped:
            lines.append(f"{label:<{_LABELS}}{part}")
            label = ""
    console.print("\n".join(lines) + "\n", markup=False, highlight=False, soft_wrap=True)
