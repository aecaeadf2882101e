"""What the fields of the page share."""

from typing import Any

COMPACT: dict[str, Any] = {"density": "compact", "hide_details": True, "variant": "outlined"}
# trame drops, without a word, what a widget does not list.
RETURN: dict[str, Any] = {"__events": [("keydown_enter", "keydown.enter")]}
# What stands in a field goes with the call: the state of the page follows the last keys a little later.
TYPED = "[$event.target.value]"
