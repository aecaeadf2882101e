"""Slicer's translation functions; without them, in Slicer before 5.4, texts stay in English."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
    from slicer.i18n import translate
except ImportError:

    def _(text: str) -> str:
        return text

    def translate(context: str, text: str) -> str:
        """The text; ``context`` is the class whose translations would be looked up."""
        return text


__all__ = ["_", "translate"]
