"""Whether a scan may leave this computer: the user is asked once for each server."""

from __future__ import annotations

import slicer
import slicer.util

from ctfindings_client.transport import is_local, is_private
from CTFindingsLib.i18n import _


class Consent:
    """Servers outside this computer that the user agreed to."""

    def __init__(self) -> None:
        self._allowed: set[str] = set()

    def given(self, address: str) -> bool:
        """Whether scans may be sent to an address; asks if it is not known yet.

        Raises:
            ServerError: when it is no address.
        """
        if is_local(address) or address in self._allowed:
            return True
        text = _(
            "The voxels of the scan will be sent to {address}. Its name, header and other data stay here. Send it?"
        ).format(address=address)
        if not is_private(address):
            text += " " + _("The connection is NOT encrypted.")
        if slicer.util.confirmOkCancelDisplay(text, windowTitle=_("CT Findings")):
            self._allowed.add(address)
        return address in self._allowed
