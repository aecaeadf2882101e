"""How the tests are spread over the processes of ``pytest -n``."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SHARED = tuple(
    f"tests/{name}/" for name in ("bundle", "plugins/monailabel", "plugins/slicer", "plugins/viewer", "scripts")
)
"""Folders whose files share a server, a browser, a program or scans."""


class ByFile(LoadScopeScheduling):
    """Gives a file, or a folder whose files share something, to one process: what they share is made once, and tests
    of one page or server come in the order in which they are written.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return next((folder for folder in SHARED if file.startswith(folder)), file)
