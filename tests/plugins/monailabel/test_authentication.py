"""MONAI Label's own authentication: with a realm on the loopback, whose tokens are checked by its public key."""

import json
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

# The routes that need no scan: the state of training is for users, stopping it is for administrators.
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from lib.options import OWN_BUNDLE, use_bundle
from lib.compatibility import provide_storage_uids
use_bundle(OWN_BUNDLE); provide_storage_uids()
from starlette.testclient import TestClient
from lib.server import create_server
client = TestClient(create_server(["*"]), raise_server_exceptions=False)
answers = {}
for name, token in json.loads(sys.argv[2]).items():
    headers = {"Authorization": "Bearer " + token} if token else {}
    calls = (client.get, client.delete)
    answers[name] = [call("/train/", headers=headers).status_code for call in calls]
answers["auth"] = client.get("/auth/").json()["enabled"]
print("ANSWERS" + json.dumps(answers))
"""


@pytest.fixture
def realm() -> Iterator[str]:
    """Says its public key, as a Keycloak realm does."""
    public = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    class Realm(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"public_key": b64encode(public).decode()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Realm) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/realms/chest"
        server.shutdown()


def token(*roles: str, seconds: int = 600, key: object = KEY, algorithm: str = "RS256") -> str:
    payload = {"preferred_username": "ann", "realm_access": {"roles": list(roles)}, "exp": int(time.time()) + seconds}
    return jwt.encode(payload, key, algorithm=algorithm)  # type: ignore[arg-type]


def test_tokens_of_the_realm_open_what_their_role_may(
    realm: str, bundle_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    tokens = {
        "none": "",
        "user": token("monailabel-user"),
        "admin": token("monailabel-user", "monailabel-admin"),
        "no role": token("visitor"),
        "expired": token("monailabel-admin", seconds=-60),
        "forged": token("monailabel-admin", key=other),
        "unsigned": token("monailabel-admin", key=None, algorithm="none"),
    }
    monkeypatch.setenv("MONAI_LABEL_AUTH_ENABLE", "true")
    monkeypatch.setenv("MONAI_LABEL_AUTH_REALM_URI", realm)
    app = str(bundle_root / "plugins" / "monailabel")
    run = subprocess.run(
        [sys.executable, "-c", ASK, app, json.dumps(tokens)], capture_output=True, encoding="utf-8", check=False
    )
    assert "ANSWERS" in run.stdout, run.stderr[-3000:]
    answers = json.loads(run.stdout.split("ANSWERS")[1])
    assert answers["auth"] is True
    # 404: nothing is being trained, which only those learn who may ask.
    assert answers["user"] == [404, 403]
    assert answers["admin"] == [404, 404]
    assert answers["no role"] == [403, 403]
    for name in ("none", "expired", "forged", "unsigned"):
        assert answers[name] == [401, 401], name
