"""The command line of an experiment as its page shows it, without folders of a machine."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def shown_command(arguments: Sequence[str], replaced: Mapping[str, str | None]) -> str:
    """A command line without folders of a machine.

    Args:
        arguments: The script and its arguments, as in ``sys.argv``.
        replaced: Words shown instead of the values of some options; None leaves the option out. Of other paths only
            the file name is shown where they lie outside the checkout.
    """
    shown = [f"python {Path(arguments[0]).resolve().relative_to(ROOT).as_posix()}"]
    word: str | None = ""
    for argument in arguments[1:]:
        if argument.startswith("--"):
            word = replaced.get(argument, "")
            shown += [argument] if word is not None else []
            shown += [word] if word else []
        elif word == "":
            shown.append(_without_folder(argument))
    return " ".join(shown)


def _without_folder(argument: str) -> str:
    """An argument ``PATH`` or ``NAME=PATH``; of a path outside the checkout only the file name is kept."""
    name, equals, value = argument.rpartition("=")
    outside = Path(value).is_absolute() or value.startswith("..")
    return shlex.quote(name + equals + (Path(value).name if outside else value))
