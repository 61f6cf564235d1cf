"""The options that the C core reads: it has the names, the settings the values."""

from poolsrv import _core
from poolsrv.settings.rows import Settings


def core_options(settings: Settings) -> dict[str, object]:
    """What `_core.Dispatcher` and `_core.Worker` take as `options`."""
    return {name: getattr(settings, name) for name in _core.OPTIONS}
