"""Options of ``monai.bundle run``: one that no configuration knows, or that is no number where one belongs, is refused
in one line.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from monai.bundle import ConfigParser
from monai.bundle.scripts import run

_OF_MONAI = {name for name in inspect.signature(run).parameters if name != "override"}


def check_options(arguments: Sequence[str] | None = None) -> None:
    """Refuses a misspelt option of the command line, and a word where the configuration has a number.

    Args:
        arguments: of the program; its own by default. Without ``--config_file`` among them the program was not started
            by ``monai.bundle run``, and nothing is checked.

    Raises:
        ValueError: when an option is no key of the configuration files, or its value is no number and the files have
            one there.
    """
    given = _options(sys.argv[1:] if arguments is None else arguments)
    if "config_file" not in given:
        return
    content = ConfigParser.load_config_files(_files(given["config_file"]))
    known = {_key(name) for name in content}
    for name, value in given.items():
        if _key(name) not in known | _OF_MONAI | {ConfigParser.meta_key}:
            near = get_close_matches(_key(name), known | _OF_MONAI, n=1)
            remedy = (
                f"did you mean --{near[0]}?"
                if near
                else "the keys at the top of the configuration files are the options"
            )
            raise ValueError(f"--{name}: no configuration file has this key; {remedy}")
        default = content.get(name)
        if isinstance(default, int | float) and not _may_be_number(value):
            wanted = "is neither True nor False" if isinstance(default, bool) else "is no number"
            raise ValueError(f"--{name} {value}: {wanted}; the configuration has {default}")


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Options by name, as Fire reads them: ``--name value``, ``--name=value`` or ``--name`` for True, with ``-`` in
    names for ``_``.
    """
    found: dict[str, str] = {}
    for place, argument in enumerate(arguments):
        if match := re.fullmatch(r"--([A-Za-z_+][^=\s]*)(?:=(.*))?", argument, re.DOTALL):
            following = arguments[place + 1] if place + 1 < len(arguments) else "--"
            found[match[1].replace("-", "_")] = (
                ("True" if following.startswith("--") else following) if match[2] is None else match[2]
            )
    return found


def _may_be_number(value: str) -> bool:
    """Whether a value is a number, True, False or None, or an expression or reference, of which nothing is known here.

    The command line takes ``false`` for a word, and a word for true.
    """
    if value.startswith(("$", "@", "%")):
        return True
    try:
        return isinstance(ast.literal_eval(value), int | float | None)
    except (SyntaxError, ValueError):
        return False


def _key(name: str) -> str:
    """The key at the top of a configuration to which ``key#part`` belongs."""
    return re.split("#|::", name.lstrip("+"))[0]


def _files(value: str) -> list[str]:
    """Names in ``file``, or in ``['file', 'file']``."""
    return [str(name) for name in ast.literal_eval(value)] if value.lstrip().startswith("[") else [value]
