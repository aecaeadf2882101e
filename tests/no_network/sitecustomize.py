"""Refuses every socket that would leave this machine. Python imports it at start, so it also holds in the processes
that a test starts.

tests/conftest.py puts this folder on PYTHONPATH. A refusal is not an OSError on purpose: libraries that try a download
and quietly go on when it fails must fail the test too.
"""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

_REAL_CONNECT: dict[str, Callable[..., Any]] = {
    name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")
}
_REAL_GETADDRINFO = socket.getaddrinfo


class NetworkRefused(RuntimeError):
    """A test, or a process it started, tried to reach another machine."""


def is_local(host: str | bytes | None) -> bool:
    """Whether a host name or address is this machine itself: no host, ``localhost``, its own name or a loopback
    address.
    """
    if host is None:
        return True
    name = host.decode() if isinstance(host, bytes) else host
    if name in ("", "localhost", "0.0.0.0", "::", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(name.split("%")[0]).is_loopback
    except ValueError:  # a name, not an address
        return False


def _guard(method: str) -> Callable[..., Any]:
    real = _REAL_CONNECT[method]

    def guarded(self: socket.socket, *args: Any) -> Any:
        address = args[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and not is_local(address[0]):
            raise NetworkRefused(f"{method} to {address[0]}:{address[1]}: tests run without a network")
        return real(self, *args)

    return guarded


def _getaddrinfo(host: str | bytes | None, *args: Any, **kwargs: Any) -> Any:
    if not is_local(host):
        raise NetworkRefused(f"looking up {host!r}: tests run without a network")
    return _REAL_GETADDRINFO(host, *args, **kwargs)


def refuse() -> None:
    """Put the guards in place for this process."""
    for method in _REAL_CONNECT:
        setattr(socket.socket, method, _guard(method))
    socket.getaddrinfo = _getaddrinfo


def allow() -> None:
    """Take the guards away again."""
    for method, real in _REAL_CONNECT.items():
        setattr(socket.socket, method, real)
    socket.getaddrinfo = _REAL_GETADDRINFO


refuse()
