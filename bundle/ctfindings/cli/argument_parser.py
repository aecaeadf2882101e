"""An argument parser that names the option that was probably meant."""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any


class SuggestingParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that checks the names of options before anything else, and suggests the nearest one."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """See ``argparse.ArgumentParser.parse_args``; a name may be shortened there too."""
        given = list(sys.argv[1:] if args is None else args)
        options = given[: given.index("--")] if "--" in given else given
        for name in (option.partition("=")[0] for option in options if option.startswith("--")):
            known = [option for option in self._option_string_actions if option.startswith("--")]
            if not any(option.startswith(name) for option in known):
                near = get_close_matches(name, known, n=1)
                self.error(f"{name}: no such option; {f'did you mean {near[0]}?' if near else 'see --help'}")
        return super().parse_args(given, namespace)
