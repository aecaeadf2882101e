"""The viewer's package without its libraries: what needs neither trame nor a scene runs in the main environment."""

from __future__ import annotations

import sys
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
for folder in (PLUGINS / "viewer", PLUGINS / "slicer" / "CTFindings"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
