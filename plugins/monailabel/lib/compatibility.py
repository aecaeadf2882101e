"""What MONAI Label 0.8.5 needs to run beside the libraries of today. Each repair names the fault; remove it when the
fault is gone.
"""

import sys
from types import ModuleType
from typing import Any

REALM_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
"""Signatures with a public key, which is what a realm publishes. Never one with a shared secret: the public key would
be that secret.
"""


def provide_storage_uids() -> None:
    """Lets pydicom-seg 0.4.1 be imported, which MONAI Label does when it starts.

    It reads ``pydicom._storage_sopclass_uids``, a private module that pydicom 3 removed; the same names live in
    ``pydicom.uid``.
    """
    import pydicom.uid

    name = "pydicom._storage_sopclass_uids"
    if name in sys.modules:
        return
    module = ModuleType(name, "Stand-in for a module of pydicom 2, for pydicom-seg.")
    for uid in dir(pydicom.uid):
        if uid.endswith("Storage"):
            setattr(module, uid, getattr(pydicom.uid, uid))
    sys.modules[name] = module


def check_tokens_with_named_algorithms() -> None:
    """Lets a valid token pass: MONAI Label does not name the algorithms it accepts, and PyJWT 2 then refuses every
    token.
    """
    import jwt
    from monailabel.endpoints.user import auth

    class _Tokens:
        @staticmethod
        def decode(token: str, key: str, options: Any) -> Any:
            return jwt.decode(token, key, algorithms=REALM_ALGORITHMS, options=options)

    auth.jwt = _Tokens
