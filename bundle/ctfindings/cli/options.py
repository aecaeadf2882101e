"""Options of the command line: those of ``monai.bundle run`` are checked, ``KEY=VALUE`` of scripts is read."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_NEEDS = {"anatomy_mapping": "anatomy"}
"""Options that say how another one is read."""

_FIXED_LENGTHS = {"spacing", "roi_size", "hu_window", "shift_voxels", "synthetic_counts"}
"""Lists with a number for each axis, limit or split; others, such as ``learning_rates``, may have any length."""

_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("epochs", "tuning_epochs", "decoder_epochs", "batch_size", "resamples"), (1, inf)),
    "folds": (2, inf),
    "min_lung_litres": (0, inf),
    "diffuse_share": (0, 1),
}
"""Smallest and largest value of numbers that would fail late or mean nothing."""

_CHOICES = {"encoder": ("frozen", "tuned")}

_STEPS = {"init": "initialize", "run": "run", "final": "finalize"}


def check_options(arguments: Sequence[str] | None = None) -> None:
    """Checks the options of ``monai.bundle run`` against the keys of its configuration files.

    Without ``--config_file`` another program is running, and nothing is checked. ValueError if an option is not a key
    of the files, its value cannot stand for that of the files (a word for a number, a number for a list), or nothing
    that the workflow runs refers to its key.
    """
    given = _options(sys.argv[1:] if arguments is None else arguments)
    if "config_file" not in given:
        return
    # PyTorch and MONAI take seconds to import, and a script that only reads its arguments needs neither.
    from monai.bundle import ConfigParser, ReferenceResolver
    from monai.bundle.scripts import run

    of_monai = {name for name in inspect.signature(run).parameters if name != "override"}
    named = given["config_file"]  # FILE, or ['FILE', 'FILE']
    files = [str(name) for name in ast.literal_eval(named)] if named.lstrip().startswith("[") else [named]
    content = read_configs(files)
    known = {_key(name) for name in content} | of_monai
    for name, value in given.items():
        if _key(name) not in known | {ConfigParser.meta_key}:
            near = get_close_matches(_key(name), known, n=1)
            remedy = f"did you mean --{near[0]}?" if near else "the options are the top-level keys of these files"
            raise ValueError(f"--{name}: not a key of the configuration files; {remedy}")
        default = content.get(name)
        if wanted := _wanted(name, value, default):
            raise ValueError(f"--{name}: expected {wanted}, got {value!r}; the configuration has {default}")
    for name, needed in _NEEDS.items():
        if name in given and content.get(needed, "") is None and needed not in given:
            raise ValueError(f"--{name} has no effect without --{needed}; add it, or remove --{name}")
    if {"args_file", "tracking"} & given.keys():  # Either may refer to any key.
        return
    overrides = {name: value for name, value in given.items() if _key(name) not in of_monai}
    steps = [given.get(f"{step}_id", name) for step, name in _STEPS.items()]
    used = _used(content, overrides, ["imports", *steps])
    for name in overrides:
        key = f"{ReferenceResolver.normalize_id(name)}::"
        if not any(key.startswith(f"{other}::") or f"{other}::".startswith(key) for other in used):
            raise ValueError(f"--{name} has no effect with {', '.join(files)}; remove it")


def read_configs(files: Sequence[str]) -> dict[str, Any]:
    """The merged content of configuration files; ValueError if one is missing, no JSON or YAML, or no mapping."""
    from monai.bundle import ConfigParser

    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"{file}: no such configuration file; check the path and the folder you start in")
        try:
            content = ConfigParser.load_config_file(file)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{file}: cannot be read as a configuration ({reason}); correct the file") from error
        if not isinstance(content, dict):
            raise ValueError(
                f"{file}: expected an object of settings, found {type(content).__name__}; correct the file"
            )
    return dict(ConfigParser.load_config_files(files))


def check_device(device: str | torch.device) -> None:
    """Raises a ValueError if a device is asked for that PyTorch does not know or this machine does not have."""
    import torch

    try:
        asked = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"--device: {device!r} is not a device; use cpu, cuda or cuda:0") from error
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.device_count() else "no CUDA"
        raise ValueError(f"--device: {asked} was asked for, but there is {found} here; use --device cpu")


def _used(content: dict[str, Any], overrides: dict[str, str], steps: Sequence[str]) -> set[str]:
    """Keys that the steps of the workflow refer to, directly or through other keys, with their separators as ``::``."""
    from monai.bundle import ConfigParser, ReferenceResolver

    parser = ConfigParser(content)
    parser.update({name: _value(value) for name, value in overrides.items()})
    parser.resolve_macro_and_relative_ids()
    waiting, used = list(steps), {"bundle_root", ConfigParser.meta_key}
    while waiting:
        if (key := waiting.pop()) not in used:
            used.add(key)
            waiting += ReferenceResolver.find_refs_in_config(parser.get(key), key)
    return used


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Options as Fire reads them: ``--name value``, ``--name=value`` or ``--name`` for True; ``-`` stands for ``_``."""
    found: dict[str, str] = {}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="--"):
        if match := re.fullmatch(r"--([A-Za-z_+][^=\s]*)(?:=(.*))?", argument, re.DOTALL):
            separate = "True" if following.startswith("--") else following
            found[match[1].replace("-", "_")] = separate if match[2] is None else match[2]
    return found


def _wanted(name: str, value: str, default: Any) -> str:
    """What a value should be, by the default of its key; empty if it may be right. Fire reads ``false`` as a word."""
    read = _value(value)
    if read is None or value.startswith(("$", "@", "%")):
        return ""
    if isinstance(default, int | float) and not isinstance(read, int | float):
        return "True or False (with a capital letter)" if isinstance(default, bool) else "a number"
    low, high = _RANGES.get(name, (-inf, inf))
    if isinstance(read, int | float) and not low <= read <= high:
        return f"at least {low:g}" if high == inf else f"{low:g} to {high:g}"
    if read not in _CHOICES.get(name, (read,)):
        return " or ".join(_CHOICES[name])
    if isinstance(default, list) and default and all(isinstance(each, int | float) for each in default):
        length = len(default) if name in _FIXED_LENGTHS else None
        if not isinstance(read, list | tuple) or length not in (None, len(read)):
            return f"a list of {length} numbers" if length else "a list of numbers"
    return ""


def _value(value: str) -> Any:
    """A value as Fire reads it."""
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value


def _key(name: str) -> str:
    """The top-level key of ``key#part``."""
    return re.split("#|::", name.lstrip("+"))[0]


def at_least(least: int) -> Callable[[str], int]:
    """A type of ``argparse``: a whole number that is not smaller. ArgumentTypeError for another text."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return int(text)

    return number


def config_setting(text: str) -> tuple[str, Any]:
    """Splits ``KEY=VALUE``; the value is read as JSON, or else as text. ArgumentTypeError if there is no ``=``."""
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
