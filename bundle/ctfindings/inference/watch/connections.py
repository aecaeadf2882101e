"""Connections to DICOMweb servers and DICOM nodes, and what is said when they do not answer."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

SECONDS = 120
"""Time in which a server has to begin its answer."""

AWAY = (502, 503, 504)
"""Status codes by which a proxy, or a server that starts, says that nobody answers."""


class Unreachable(ValueError):
    """A server that does not answer. Nothing is wrong with the series; all of them are tried again."""


@contextmanager
def answering() -> Iterator[None]:
    """Errors of requests become Unreachable, or a ValueError with the status if the server refused.

    The address is left out, because it may hold a password or a UID.
    """
    try:
        yield
    except requests.HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        if status in AWAY:
            raise Unreachable(f"the DICOMweb server is not available (status {status})") from error
        if status in (401, 403):
            raise Unreachable(f"the DICOMweb server needs a login (status {status}); put it into ~/.netrc") from error
        raise ValueError(
            f"the DICOMweb server refused the request (status {status}); its log has the reason"
        ) from error
    except requests.RequestException as error:
        raise Unreachable(f"the DICOMweb server does not answer ({type(error).__name__})") from error


def dicomweb_client(url: str) -> Any:
    """A client; login and password come from ~/.netrc. ValueError if the package is not installed."""
    try:
        from dicomweb_client import DICOMwebClient
    except ImportError as error:
        raise ValueError(
            "DICOMweb needs dicomweb-client, which is not installed: pip install -e '.[archive]'"
        ) from error
    client = DICOMwebClient(url, timeout=SECONDS)
    client.set_http_retry_params(retry=False)  # The watcher waits and tries again itself.
    return client


def check_address(address: str, option: str, insecure: bool) -> None:
    """ValueError for an address beyond this machine without encryption, unless that is wanted."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https", "dicom") or not parts.hostname:
        problem = "expected http(s)://HOST/dicom-web or dicom://AETITLE@HOST:PORT"
        raise ValueError(f"{option}: {problem}, got {address!r}")
    if parts.scheme != "https" and not insecure and not _is_loopback(parts.hostname):
        problem = f"{parts.hostname} is another machine, and {parts.scheme} is not encrypted"
        raise ValueError(f"{option}: {problem}; use https, a tunnel, or --insecure in a closed network")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
