"""An application whose import ends the process while the file `crash` is in PROBE_DIR."""

import os
from pathlib import Path

from tests.apps.hello import app

__all__ = ["app"]

if (Path(os.environ["PROBE_DIR"]) / "crash").exists():
    os._exit(9)
