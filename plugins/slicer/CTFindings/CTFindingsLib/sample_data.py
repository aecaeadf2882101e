"""The synthetic scan of the extension in Slicer's module Sample Data, for a first look without a scan of a patient."""

from __future__ import annotations

import hashlib
from pathlib import Path

from CTFindingsLib.i18n import _

# scripts/package_slicer_extension.py of the CT Findings repository renders it.
SCAN = Path(__file__).parent.parent / "Resources" / "SampleData" / "synthetic_chest_ct.nii.gz"
ICON = Path(__file__).parent.parent / "Resources" / "Icons" / "CTFindings.png"


def register() -> None:
    """Adds the scan to the module Sample Data, which Slicer has loaded at the end of its start."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_("CT Findings"),
        sampleName="SyntheticChestCT",
        uris=SCAN.as_uri(),
        fileNames=SCAN.name,
        nodeNames="SyntheticChestCT",
        thumbnailFileName=str(ICON),
        # Slicer keeps a copy by its name; after an update of the extension, this tells it from the earlier scan.
        checksums=f"SHA256:{hashlib.sha256(SCAN.read_bytes()).hexdigest()}",
    )
