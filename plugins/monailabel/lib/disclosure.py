"""What a client may see of the datastore: no paths of the server, and report texts only with the reader's key."""

from pathlib import Path
from typing import Any

from .taught_studies import STUDY


def disclosed(content: Any, reader: bool) -> Any:
    """An answer of MONAI Label without folders, and without study records unless the client is a reader.

    Args:
        content: values of JSON.
        reader: whether study records, which hold report texts, are shown.
    """
    if isinstance(content, list):
        return [disclosed(each, reader) for each in content]
    if not isinstance(content, dict):
        return content
    shown = {}
    for key, value in content.items():
        if key in (STUDY, "details"):  # The second has the lines that a training printed.
            if reader:
                shown[key] = value
        elif isinstance(value, str) and Path(value).is_absolute():
            if key != "path":
                shown[key] = Path(value).name
        else:
            shown[key] = disclosed(value, reader)
    return shown
