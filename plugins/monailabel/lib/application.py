"""The app: models, datastore and training of one bundle behind MONAI Label's interface."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from bundle.ctfindings import __version__

from .corrections import CorrectionStore
from .datastores import SeriesDatastore, corrections_folder, folder_datastore
from .infer_tasks import EvidenceTask, FindingsPointsTask, FindingsTask, ScanTask
from .least_sure import LeastSure
from .logs import SERVER_LOG
from .options import Options
from .scan_service import ScanService
from .session_store import remove_expired
from .temporary import TEMPORARY, remove_older
from .train_task import FineTuning

logger = logging.getLogger(SERVER_LOG)


class CTFindingsApp(MONAILabelApp):
    """Made by MONAI Label, once in a server and once in each background process.

    Args:
        app_dir: folder of the app.
        studies: folder of scans, or address of a DICOMweb server.
        conf: ``--conf``; see ``options.KEYS``.
    """

    studies: str

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self.options = Options.of(conf)
        self.service = ScanService(self.options)
        self.corrections = CorrectionStore(corrections_folder(self.options, studies), self.service.digest)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf),
            name="CT Findings",
            description="Findings in chest CT by text prompts. Research only; not a medical device, not for diagnosis.",
            version=__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        service = self.service
        return {
            "findings": FindingsTask(service),
            "findings_points": FindingsPointsTask(service),
            "evidence": EvidenceTask(service),
            "scan": ScanTask(service),
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        return {"findings": FineTuning(self.options, self.corrections)}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": Random(), "first": First(), "least_sure": LeastSure(self.service, self.corrections)}

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            self.studies = self.studies.rstrip("/").strip()
            return self.init_remote_datastore()
        return folder_datastore(self.options, Path(self.studies))

    def _init_dicomweb_datastore(self) -> Datastore:
        """Without what MONAI Label does besides: it downloads a tool for DICOM SEG, which this app does not write."""
        user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        client = DICOMwebClientX(
            url=self.studies,
            session=create_session_from_user_pass(user, password) if user and password else None,
            qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
            wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
            stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
        )
        # By default it tries for 30 s to reach a server that is down, which is longer than clients wait.
        client.set_http_retry_params(max_attempts=2, wait_exponential_multiplier=500)
        return SeriesDatastore(
            client, settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER, settings.MONAI_LABEL_DICOMWEB_CACHE_PATH
        )

    def cleanup_sessions(self) -> None:
        """Called by MONAI Label when the server starts and every five minutes, by a thread that an error would end."""
        work, seconds = self.options.work, 3600 * self.options.limits.keep_hours
        try:
            removed = remove_expired(self._sessions) if self._sessions is not None else 0
            # Below "dicomweb", each server has a folder, which has one for each series that was fetched.
            entries = [*(work / TEMPORARY).glob("*"), *(work / "dicomweb").glob("*/[0-9]*")]
            entries += (work / "dicomweb").glob("*/.partial-*")
            removed += remove_older(entries, seconds)
        except Exception:
            logger.exception("expired scans could not be looked for")
            return
        if removed:
            logger.info("%d expired scans or files were removed", removed)

    def info(self) -> dict[str, Any]:
        return {**super().info(), "disclaimer": "Research only. Not a diagnosis."}
