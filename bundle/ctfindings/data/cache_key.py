"""Cache key of a transform chain: its classes with source and parameters, and the versions of the code."""

import enum
import functools
import hashlib
import inspect
import json
import logging
import threading
import types
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePath
from typing import Any

import monai
import numpy as np
import torch
from monai.transforms import Transform

from bundle.ctfindings import __version__

_OURS = __name__.rsplit(".", 2)[0]


def describe_pipeline(steps: Sequence[Transform], key: Any = None) -> dict[str, Any]:
    """Plain JSON of all that the result of deterministic steps depends on, besides the study; ``key`` is added."""
    versions = {"ctfindings": __version__, "monai": monai.__version__, "torch": torch.__version__}
    return {"versions": versions, "key": describe(key), "steps": [describe(step) for step in steps]}


def version_of(description: Mapping[str, Any]) -> str:
    """16 hexadecimal digits, the digest of a description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]


def describe(value: Any, within: tuple[int, ...] = ()) -> Any:
    """Describes a value as plain JSON, the same in every process: objects by class and attributes, functions by code.

    Classes of this package add a digest of their source. Functions and modules that they call are not included: if you
    change these so that scans come out differently, raise the version of the package or empty the caches. A class that
    holds a network has its digest as an attribute, and names the attributes to leave out in ``not_in_cache_key``.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in within:
        return "..."
    within = (*within, id(value))
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, PurePath | torch.dtype | torch.device | np.dtype | np.generic):
        return str(value)
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.ascontiguousarray(torch.as_tensor(value).cpu().numpy())
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()[:16]]
    if isinstance(value, logging.Logger):
        return value.name
    if isinstance(value, Mapping):
        return {str(name): describe(part, within) for name, part in value.items()}
    if isinstance(value, Set):
        return sorted(json.dumps(describe(part, within), sort_keys=True) for part in value)
    if isinstance(value, Sequence):
        return [describe(part, within) for part in value]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.FunctionType):
        return _function(value, within)
    if isinstance(value, types.MethodType):
        return [describe(value.__func__, within), describe(value.__self__, within)]
    if isinstance(value, functools.partial):
        return [describe(part, within) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType | np.ufunc):
        return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', value.__name__)}"
    return _object(value, within)


def _function(function: types.FunctionType, within: tuple[int, ...]) -> dict[str, Any]:
    """Name, code, defaults and closure, so that two lambdas on one line differ."""
    code = function.__code__
    inner = [constant for constant in code.co_consts if not isinstance(constant, types.CodeType)]
    return {
        "function": f"{function.__module__}.{function.__qualname__}",
        "code": hashlib.sha256(code.co_code).hexdigest()[:16],
        "names": [*code.co_names],
        "constants": describe(inner, within),
        "defaults": describe([function.__defaults__, function.__kwdefaults__], within),
        "closure": [describe(cell.cell_contents, within) for cell in function.__closure__ or ()],
    }


def _object(value: Any, within: tuple[int, ...]) -> dict[str, Any]:
    kind = type(value)
    # Random state does not affect a deterministic step and differs between runs; MONAI adds thread-local state in use.
    attributes = {
        name: describe(part, within)
        for name, part in getattr(value, "__dict__", {}).items()
        if name not in getattr(kind, "not_in_cache_key", ())
        and not isinstance(part, np.random.RandomState | threading.local)
    }
    described = {"class": f"{kind.__module__}.{kind.__qualname__}", **attributes}
    if kind.__module__.startswith(f"{_OURS}."):
        described["source"] = hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()[:16]
    return described
