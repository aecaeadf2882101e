"""Ports of the loopback for servers that tests start."""

import socket
from contextlib import suppress
from random import SystemRandom


def free_port() -> int:
    """A free port below those that the system gives to clients, so that nobody takes it before it is opened."""
    for port in SystemRandom().sample(range(10_000, 32_000), 100):
        with socket.socket() as taken, suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
