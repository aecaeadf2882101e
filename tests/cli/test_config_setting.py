"""``KEY=VALUE`` arguments: the value is JSON or text."""

from __future__ import annotations

import argparse

import pytest

from bundle.ctfindings.cli.config_setting import config_setting


def test_setting_is_json_or_text() -> None:
    assert config_setting("spacing=[6, 6, 4.5]") == ("spacing", [6, 6, 4.5])
    assert config_setting("name=a=b") == ("name", "a=b")
    with pytest.raises(argparse.ArgumentTypeError, match="expected KEY=VALUE, got 'spacing'"):
        config_setting("spacing")
