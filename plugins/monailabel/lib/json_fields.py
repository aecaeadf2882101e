"""Form fields that hold JSON: an object, or a refusal that says which field it was."""

import json
from typing import Any

from .usage_error import UsageError


def json_object(field: str, text: str, example: str) -> dict[str, Any]:
    """The object in a form field; an empty field is an empty object.

    Args:
        field: its name, for the message.
        text: what was sent.
        example: an object that would do.

    Raises:
        UsageError: when it is not a JSON object.
    """
    try:
        content = json.loads(text or "{}")
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(400, f"{field}: is not valid JSON; give an object such as {example}") from error
    if not isinstance(content, dict):
        raise UsageError(400, f"{field}: is not a JSON object; give one such as {example}")
    return content
