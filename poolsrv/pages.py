"""The pages of the server's own answers, read for the core."""

import os
from pathlib import Path

from poolsrv.errors import ConfigError
from poolsrv.settings.pages import TYPES, ErrorPage
from poolsrv.settings.rows import Settings

# HTTP1_PAGE_LONGEST of http1_answer.h: what a client surely gets at once, however slow it is.
LONGEST = 16384

Page = tuple[int, bytes, bytes]


def read_pages(settings: Settings, folder: str) -> tuple[Page, ...]:
    """Status, type and body of each. Raises ConfigError."""
    return tuple(_read(page, folder) for page in settings.error_pages)


def _read(page: ErrorPage, folder: str) -> Page:
    path = Path(folder, page.path)
    try:
        with path.open("rb") as file:
            body = file.read(LONGEST + 1)
    except OSError as error:
        raise ConfigError(
            f"error-pages: {path}: {error.strerror}", "give a file that can be read"
        ) from None
    if len(body) > LONGEST:
        raise ConfigError(
            f"error-pages: {path} is longer than 16 KiB",
            "let the page refer to images and styles elsewhere",
        )
    return page.status, page.type.encode(), body


def maintenance_of(settings: Settings, folder: str) -> tuple[bytes, bytes] | None:
    """The file and the type of what is in it."""
    if settings.maintenance_file is None:
        return None
    path = Path(folder, settings.maintenance_file)
    return os.fsencode(path), TYPES.get(path.suffix, TYPES[".html"]).encode()
