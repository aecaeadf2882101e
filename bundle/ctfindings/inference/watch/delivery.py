"""Where results go: a DICOMweb server by STOW-RS, a DICOM node by C-STORE, or nowhere but the output folder.

Every object has the UID that its scan and weights give it, so one that is sent again is the same object.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pydicom

from bundle.ctfindings.inference.watch.connections import SECONDS, Unreachable, answering, dicomweb_client

AE_TITLE = "CTFINDINGS"
"""Our own name as a DICOM node."""


class StowDelivery:
    """A DICOMweb server. What it has is asked first, so an object that arrived before a crash is not sent again.

    Args:
        url: of the service, such as ``http://127.0.0.1:8042/dicom-web``.
    """

    def __init__(self, url: str) -> None:
        self.client = dicomweb_client(url)

    def send(self, files: Sequence[Path]) -> int:
        """Sends the files that are not there yet; returns how many.

        Unreachable if nobody answers, ValueError if the server refuses an object.
        """
        objects = [pydicom.dcmread(file) for file in files]
        present: set[str] = set()
        with answering():
            for study, series in {(str(each.StudyInstanceUID), str(each.SeriesInstanceUID)) for each in objects}:
                found = self.client.search_for_instances(study, series)
                present |= {str(each["00080018"]["Value"][0]) for each in found}
            missing = [each for each in objects if str(each.SOPInstanceUID) not in present]
            answer = self.client.store_instances(missing) if missing else pydicom.Dataset()
        if failed := answer.get("FailedSOPSequence"):
            reasons = {f"0x{item.get('FailureReason', 0):04x}" for item in failed}
            told = f"(reason {', '.join(sorted(reasons))}); its log says more"
            raise ValueError(f"the DICOMweb server refused {len(failed)} objects {told}")
        return len(missing)


class StoreDelivery:
    """A DICOM node. It cannot be asked what it has; an object that it gets twice is one object there.

    Args:
        address: ``dicom://AETITLE@HOST:PORT``.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if not parts.username or not parts.port:
            raise ValueError(f"--send: expected dicom://AETITLE@HOST:PORT, got {address!r}")
        try:
            import pynetdicom
        except ImportError as error:
            problem = "C-STORE needs pynetdicom, which is not installed"
            raise ValueError(f"--send: {problem}: pip install -e '.[archive]'") from error
        self.node = pynetdicom.AE(ae_title=AE_TITLE)
        self.node.acse_timeout = self.node.dimse_timeout = self.node.network_timeout = SECONDS
        self.title, self.host, self.port = parts.username, str(parts.hostname), parts.port

    def send(self, files: Sequence[Path]) -> int:
        """Sends all files; returns how many. Errors as those of ``StowDelivery``."""
        objects = [pydicom.dcmread(file) for file in files]
        kinds = {each.SOPClassUID: each.file_meta.TransferSyntaxUID for each in objects}
        for kind, syntax in kinds.items():
            if kind not in {context.abstract_syntax for context in self.node.requested_contexts}:
                self.node.add_requested_context(kind, syntax)
        association = self.node.associate(self.host, self.port, ae_title=self.title)
        if not association.is_established:
            raise Unreachable("the DICOM node accepts no association; check its address and AE titles")
        try:
            for each in objects:
                try:
                    status = association.send_c_store(each).get("Status")
                except (RuntimeError, ValueError) as error:  # Of pynetdicom: broken off, or a class that was refused.
                    problem = f"the DICOM node took no {each.SOPClassUID.name}"
                    raise (ValueError if association.is_established else Unreachable)(problem) from error
                if status is None:
                    raise Unreachable("the DICOM node stopped answering")
                if status != 0 and status >> 12 != 0xB:  # 0xB...: stored, with a warning
                    raise ValueError(f"the DICOM node refused an object (status 0x{status:04x}); its log says more")
        finally:
            association.release()
        return len(objects)
