"""The app's options: what ``--conf KEY VALUE`` may say, and where the bundle's code is found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .limits import MEANINGS, Limits

OWN_BUNDLE = Path(__file__).resolve().parents[3]
"""The repository that holds this app is a bundle."""

KEYS = {
    "bundle": "folder of the bundle; the repository that holds the app by default",
    "checkpoint": "weights; those that the bundle's configs/inference.json names by default",
    "overlays": "further configuration files of the bundle, separated by commas, such as configs/networks/base.json",
    "cache_mb": "memory for encoded scans in MB, 512 by default",
    "work": "folder for sessions, DICOM cache, logs and training runs; runs/monailabel of the bundle by default",
    "writable": "set by --writable",
    **MEANINGS,
}


@dataclass(frozen=True)
class Options:
    """The options of a running app; see ``KEYS``."""

    bundle: Path
    checkpoint: Path | None
    overlays: tuple[str, ...]
    cache_bytes: int
    work: Path
    writable: bool
    limits: Limits

    @staticmethod
    def of(conf: Mapping[str, Any]) -> Options:
        """Reads ``--conf``.

        Raises:
            ValueError: for an unknown key or a value that cannot be used.
        """
        unknown = sorted(set(conf) - set(KEYS))
        if unknown:
            raise ValueError(f"--conf {unknown[0]}: unknown; known are {', '.join(KEYS)}")
        bundle = Path(conf.get("bundle") or OWN_BUNDLE).resolve()
        if not (bundle / "bundle" / "ctfindings").is_dir():
            raise ValueError(f"--conf bundle: {bundle} holds no bundle/ctfindings; give the root folder of the bundle")
        try:
            megabytes = float(conf.get("cache_mb") or 512)
        except ValueError:
            megabytes = -1.0
        if not 1 <= megabytes <= 1_000_000:
            raise ValueError(f"--conf cache_mb: expected a number of MB of at least 1, got {conf['cache_mb']!r}")
        return Options(
            bundle=bundle,
            checkpoint=Path(conf["checkpoint"]).resolve() if conf.get("checkpoint") else None,
            overlays=tuple(name.strip() for name in str(conf.get("overlays") or "").split(",") if name.strip()),
            cache_bytes=int(megabytes * 1e6),
            work=Path(conf.get("work") or bundle / "runs" / "monailabel").resolve(),
            writable=str(conf.get("writable", "")).lower() == "true",
            limits=Limits.of(conf),
        )


def use_bundle(root: Path) -> None:
    """Puts the bundle first on the path, so that ``bundle.ctfindings`` is the chosen one."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def use_bundle_of_environment() -> None:
    """The same for a process that MONAI Label starts, which gets ``--conf`` through the environment."""
    use_bundle(Options.of(json.loads(os.environ.get("MONAI_LABEL_APP_CONF") or "{}")).bundle)
