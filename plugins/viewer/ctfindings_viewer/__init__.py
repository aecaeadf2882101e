"""The findings of a CT Findings server in a web browser, over a scene of 3D Slicer's core. Research only."""

import sys
from pathlib import Path

# The client, the record and everything that is put into a scene are those of the Slicer extension.
_EXTENSION = Path(__file__).resolve().parents[2] / "slicer" / "CTFindings"
if str(_EXTENSION) not in sys.path:
    sys.path.insert(0, str(_EXTENSION))
