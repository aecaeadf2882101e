"""The small networks of tests/networks, for the harness."""

from tests.networks.conftest import encoder, make_image

__all__ = ["encoder", "make_image"]
