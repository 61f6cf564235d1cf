"""The documents describe what stands: names, options, links and diagrams are those of the code."""

import ast
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from poolsrv.between.lifecycle import diagram
from poolsrv.between.scoreboard import Kind
from poolsrv.commands import manual, moving
from poolsrv.commands.cli import COMMANDS
from poolsrv.exporter.metrics import METRICS
from poolsrv.settings import interpreters
from poolsrv.settings.reference import reference
from poolsrv.settings.sources import Entry, read

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / f"{name}.md"
    for name in ("README", "ARCHITECTURE", "SCHEDULING", "CHANGELOG", "CONTRIBUTING")
]
GUIDES = sorted((ROOT / "docs").glob("*.md"))
# As in `csrc/worker/threads.c:take`, `tests/http/` or `lifecycle.py`.
PATH = re.compile(r"`([\w.][\w./]*(?:/|\.(?:c|h|py|json|yml)))(?::(\w+))?`")
WORD = re.compile(r"`(\w+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w`-])`?(--[a-z][a-z-]+)")
# A line of the README's screen: flag, metavar, default, meaning.
SCREEN = re.compile(r"^--([a-z-]+)(?: \S+)? {2,}(\S+) {2,}\S", re.MULTILINE)
# The names of other servers, in the first column.
TABLE_OF_OTHERS = re.compile(r"^\| `[^|]*` \|(?= .*\|$)|^(?:gunicorn|uwsgi) .*$", re.MULTILINE)
# Options of other programs.
OTHERS = {
    "deploy.md": {"--yes", "--from", "--wheel-dir", "--kill-whom", "--signal"},
    "CONTRIBUTING.md": {"--user-rate"},
    "testing.md": {"--init"},
    "troubleshooting.md": {"--link"},
}
SETTING = re.compile(r"^\| `([a-z-]+)` \| (.*?) \| ", re.MULTILINE)


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    return path.read_text()


@pytest.fixture(params=[*DOCUMENTS, *GUIDES], ids=lambda path: path.name)
def page(request: pytest.FixtureRequest) -> Path:
    """A document, or a guide: that has names of other programs and of the reader's files."""
    path: Path = request.param
    return path


def settings() -> dict[str, str]:
    """The options and their defaults, as the reference shows them."""
    return dict(SETTING.findall(reference()))


def fenced(text: str) -> list[tuple[str, str]]:
    """The code blocks: language, or nothing, and text."""
    return re.findall(r"^```(\w*)\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


def sections(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def defined(path: Path) -> set[str]:
    """The functions and classes of a Python file, or the functions of a C file."""
    if path.suffix == ".py":
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        nodes = ast.walk(ast.parse(path.read_text()))
        return {node.name for node in nodes if isinstance(node, kinds)}
    # PEP 7: the name of a function that is defined starts a line.
    return set(re.findall(r"^(\w+)\(", path.read_text(), re.MULTILINE))


def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in sections(file.read_text()), target


def test_the_site_has_a_menu_of_all_pages() -> None:
    tree = ast.parse((ROOT / "docs" / "site" / "conf.py").read_text())
    (menu,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MENU"
    ]
    pages = [*ROOT.glob("*.md"), *GUIDES]
    named = {str(page.relative_to(ROOT).with_suffix("")) for page in pages} - {"README"}
    assert {page for part in menu.values() for page in part} == named


def test_paths_and_names_exist(document: str) -> None:
    for name, function in PATH.findall(document):
        places = [folder / name for folder in (ROOT, ROOT / "poolsrv")]
        found = [place for place in places if place.exists()]
        assert found, name
        assert not function or function in defined(found[0]), f"{name}:{function}"


def test_words_of_the_architecture_are_words_of_the_code() -> None:
    files = [path for path in (ROOT / "poolsrv").rglob("*.*") if path.suffix in (".py", ".c", ".h")]
    words = {word for path in files for word in re.findall(r"\w+", path.read_text())}
    assert set(WORD.findall((ROOT / "ARCHITECTURE.md").read_text())) <= words


def test_options_exist(page: Path) -> None:
    switches = {switch for command in COMMANDS.values() for switch in command.switches}
    switches |= OTHERS.get(page.name, set())
    for flag in OPTION.findall(TABLE_OF_OTHERS.sub("", page.read_text())):
        name = flag.removeprefix("--")
        assert flag in switches or settings().keys() & {name, name.removeprefix("no-")}, flag


def test_metrics_exist(page: Path) -> None:
    exported = {metric.name for metric in METRICS}
    exported |= {f"{m.name}_bucket" for m in METRICS if m.kind is Kind.HISTOGRAM}
    fixtures = {"poolsrv_server"}
    assert set(re.findall(r"\bpoolsrv_[a-z_]+", page.read_text())) - fixtures <= exported


def test_every_alert_has_a_section() -> None:
    """Each is found by its name, from the message that somebody got at night."""
    rules = (ROOT / "dashboards" / "alerts.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert headings == alerts


def test_every_guide_is_found_from_the_readme() -> None:
    linked = LINK.findall((ROOT / "README.md").read_text())
    assert {f"docs/{guide.name}" for guide in GUIDES} <= set(linked)


def test_settings_in_files_are_allowed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "OLDEST_PYTHON", (3, 11))  # what is shown is for newer ones
    for language, text in fenced(page.read_text()):
        if language == "toml":
            (tmp_path / "shown.toml").write_text(text)
            entries = [Entry("config", "--config", str(tmp_path / "shown.toml"))]
            assert read({}, line=entries).faults == []


def test_commands_of_guides_are_commands(page: Path) -> None:
    for block in (text for _, text in fenced(page.read_text())):
        for command in re.findall(r"^(?:[\w/.]*/)?poolsrv (?!-)(\w+)", block, re.MULTILINE):
            assert command in COMMANDS, command


def test_the_screen_of_options_has_their_defaults() -> None:
    text = (ROOT / "README.md").read_text()
    rows = SCREEN.findall(text)
    (screen,) = [block for _, block in fenced(text) if block.startswith("--")]
    assert len(rows) == len(screen.splitlines())
    for name, default in rows:
        # Of a default that is a phrase, the screen has a word.
        assert default in settings()[name].split(), name


@pytest.mark.parametrize(
    ("document", "text"),
    [("SETTINGS.md", reference), ("docs/poolsrv.1", manual.page), (moving.PAGE, moving.page)],
)
def test_what_is_written_from_the_rows_is_current(document: str, text: Callable[[], str]) -> None:
    assert (ROOT / document).read_text() == text(), "run `make docs`"


def test_the_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 250


def test_the_states_are_those_of_the_table() -> None:
    assert ("mermaid", diagram()) in fenced((ROOT / "ARCHITECTURE.md").read_text())


def test_the_layers_are_those_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = project["tool"]["importlinter"]["contracts"][0]
    layers = "\n".join(contract["layers"]).replace("poolsrv.", "")
    assert ("", layers) in fenced((ROOT / "ARCHITECTURE.md").read_text())


def test_the_picture_is_small() -> None:
    """It is fetched by everybody who opens the README."""
    assert (ROOT / "dashboards" / "status.png").stat().st_size < 150_000
