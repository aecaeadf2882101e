"""A watcher whose series are answered on a Dask cluster, as a process of its own that a test can kill.

python -m tests.inference.watch.cluster_watcher INCOMING FOLDER SCHEDULER
"""

import sys
from functools import partial
from pathlib import Path

from bundle.ctfindings.inference.batch import run_archive
from bundle.ctfindings.inference.batch.run_archive import Model
from bundle.ctfindings.inference.watch.archives import FolderArchive
from bundle.ctfindings.inference.watch.watcher import Pace, Watcher
from tests.inference.watch.fabricated import FolderReceiver, answer_on_cluster


def cluster_watcher(incoming: Path, folder: Path, scheduler: str) -> Watcher:
    """A watcher with its output, the arrived objects and the marks of the service below ``folder``."""
    for name in ("arrived", "marks"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "model.pt").write_bytes(b"weights")
    return Watcher(
        FolderArchive(incoming, {"Modality": "CT"}),
        FolderReceiver(folder / "arrived"),
        "there",
        folder / "output",
        Model(".", str(folder / "model.pt")),
        partial(answer_on_cluster, folder / "marks"),
        Pace(0.2, 0.0),
        scheduler=scheduler,
    )


if __name__ == "__main__":
    run_archive.load_service = lambda *_, **__: None  # type: ignore[assignment]  # The service needs no model.
    incoming, folder, scheduler = sys.argv[1:]
    sys.exit(cluster_watcher(Path(incoming), Path(folder), scheduler).watch(once=True))
