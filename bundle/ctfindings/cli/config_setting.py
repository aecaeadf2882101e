"""``KEY=VALUE`` arguments of scripts that read a config."""

from __future__ import annotations

import argparse
import json
from typing import Any


def config_setting(text: str) -> tuple[str, Any]:
    """Splits ``KEY=VALUE``; the value is read as JSON, or else as text.

    Raises:
        argparse.ArgumentTypeError: There is no ``=``.
    """
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
