"""The site: the Markdown of the repository as it stands, by Sphinx and MyST (`make site`).

MkDocs 1 has had no release since 2024 and its successor drops plugins and themes;
Sphinx, MyST and Furo are maintained. The front page is the README. What stands in
which part of the menu is told here and nowhere else.
"""

import shutil
import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from poolsrv._version import __version__  # noqa: E402 - without the core, which a site needs not

MENU = {
    "Start": ["docs/tutorial", "docs/from-other-servers", "docs/deploy"],
    "Operate": ["docs/tuning", "docs/troubleshooting", "docs/alerts", "docs/PRIVILEGES"],
    "Applications": [
        "docs/applications",
        "docs/groups",
        "docs/scripts",
        "docs/files",
        "docs/maintenance",
        "docs/websockets",
        "docs/DEADLINES",
        "docs/UPGRADE",
        "docs/HOOKS",
        "docs/testing",
    ],
    "Reference": ["SETTINGS", "METRICS", "ERRORS", "HTTP", "CHANGELOG"],
    "Inside": ["ARCHITECTURE", "SCHEDULING", "CONTRIBUTING"],
}

project = "poolsrv"
release = __version__
root_doc = "README"
extensions = ["myst_parser"]
include_patterns = ["*.md", "docs/*.md"]
myst_heading_anchors = 4
highlight_language = "text"  # of a block that names none
html_theme = "furo"
html_title = f"poolsrv {release}"
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False


def add_menu(_app: Sphinx, name: str, content: list[str]) -> None:
    """Sphinx takes the menu from lists in pages: these stand behind the front page."""
    if name == root_doc:
        for caption, pages in MENU.items():
            lines = ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]
            content[0] += "\n\n" + "\n".join(lines) + "\n"


def check_menu(_app: Sphinx) -> None:
    """A page is in the menu, or somebody forgot it."""
    pages = {str(page.relative_to(ROOT).with_suffix("")) for page in ROOT.glob("docs/*.md")}
    pages |= {page.stem for page in ROOT.glob("*.md")} - {root_doc}
    listed = [page for part in MENU.values() for page in part]
    if missing := pages ^ set(listed):
        raise ConfigError(f"docs/site/conf.py: MENU and the pages differ in {sorted(missing)}")


# What the theme leaves to be desired for those who read by ear or by keyboard: each
# was found by axe-core. It must be in the pages, or the theme has changed.
READABLE = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Menu">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="On this page">',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper ': '<div tabindex="0" class="table-wrapper ',
}


def finish(app: Sphinx, error: Exception | None) -> None:
    """Mend the pages, and make an index, which web servers look for."""
    if error is not None or app.builder.name != "html":
        return
    unseen = set(READABLE)
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text()
        for wrong, right in READABLE.items():
            if wrong in text:
                unseen.discard(wrong)
                text = text.replace(wrong, right)
        page.write_text(text)
    if unseen:
        raise ConfigError(f"docs/site/conf.py: no page has {sorted(unseen)} any more")
    shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    for language in ("mermaid", "caddyfile", "haproxy"):
        app.add_lexer(language, TextLexer)
    app.connect("builder-inited", check_menu)
    app.connect("source-read", add_menu)
    app.connect("build-finished", finish)
