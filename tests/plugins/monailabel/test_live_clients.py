"""The server through HTTP: errors of use, pages of other sites, and many clients at once."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

from bundle.ctfindings.inference.service import AnsweredScan
from tests.plugins.monailabel.live_server import QUERY, LiveServer, assert_refused, expected, probabilities


@pytest.mark.parametrize(
    ("model", "target", "params", "status", "words"),
    [
        ("lungs", "image=first", None, 404, ["lungs", "findings_points"]),
        ("findings", "image=nobody", None, 404, ["nobody"]),
        ("findings", "image=../../etc/passwd", None, 400, ["path"]),
        ("findings", "session_id=../sessions", None, 404, ["session"]),
        ("findings", "", None, 400, ["image=ID"]),
        ("findings", "image=truncated", None, 422, ["truncated.nii.gz"]),
        ("findings", "image=eight_bit", None, 422, ["eight_bit.nii.gz", "all voxels"]),
        ("evidence", "image=first", {}, 400, ["finding", "query"]),
        ("evidence", "image=first", {"finding": "Gout"}, 400, ["Gout", "Pleural effusion"]),
        ("evidence", "image=first", {"query": "x" * 301}, 400, ["301", "300"]),
        ("evidence", "image=first", {"query": 7}, 400, ["query"]),
        ("evidence", "image=first", [1], 400, ["object"]),
        ("findings", "image=nobody", {"image": "/etc/passwd"}, 404, ["nobody"]),
    ],
)
def test_errors_of_use_are_a_status_and_a_sentence(
    server: LiveServer, model: str, target: str, params: Any, status: int, words: list[str]
) -> None:
    assert_refused(server.infer(model, target, params), status, *words)
    assert server.process.poll() is None


def test_params_that_are_no_json_are_refused(server: LiveServer) -> None:
    response = requests.post(f"{server.url}/infer/evidence?image=first", data={"params": "{"}, timeout=60)
    assert response.status_code == 400 and "JSON" in response.json()["detail"]


def test_other_routes_of_monai_label_answer_in_sentences_too(server: LiveServer) -> None:
    response = requests.post(f"{server.url}/activelearning/psychic", timeout=60)
    assert response.status_code == 400 and "psychic" in response.json()["detail"]
    assert server.get("/datastore/image?image=nobody").status_code == 404
    response = requests.put(
        f"{server.url}/datastore/image?image=..%2F..%2Fevil", files={"file": ("a.nii.gz", b"x")}, timeout=60
    )
    assert response.status_code == 400 and "path" in response.json()["detail"]
    response = requests.post(f"{server.url}/train/findings", json={"max_epochs": -1}, timeout=60)
    assert response.status_code == 400 and "max_epochs" in response.json()["detail"]
    assert server.get("/train/").status_code == 404, "nothing has been trained"
    image = server.get("/datastore/image?image=second")
    assert image.status_code == 200 and len(image.content) > 100_000
    assert requests.head(f"{server.url}/datastore/image?image=second", timeout=60).status_code == 200
    assert (
        requests.post(f"{server.url}/activelearning/random", timeout=60).json()["id"]
        in server.get("/datastore/?output=all").json()["objects"]
    )


def test_web_pages_of_others_are_not_served(server: LiveServer) -> None:
    assert server.get("/info/", headers={"Host": "evil.example"}).status_code == 400
    assert requests.post(f"{server.url}/reload", timeout=60).status_code in (404, 405)
    # A page needs no permission to send this one: it has no body.
    answer = requests.post(f"{server.url}/train/findings", headers={"Origin": "http://evil.example"}, timeout=60)
    assert answer.status_code == 403 and "pages of other sites" in answer.json()["detail"]


def test_a_client_that_is_killed_does_not_stop_the_server(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /infer/findings?image=first HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nabc"
            )
    assert server.infer("findings", "image=first", output="json").status == 200


def test_fifty_requests_of_eight_clients_are_never_mixed(server: LiveServer, answered: dict[str, AnsweredScan]) -> None:
    """Two scans, three models, queries by finding and by text: each answer is that of its own scan and question."""
    server.infer("findings", "image=first", output="json")
    server.infer("findings", "image=second", output="json")
    wanted = {
        (name, query): server.infer("evidence", f"image={name}", {"query": query}, output="json").params["score"]
        for name in answered
        for query in (QUERY, "calcified aorta")
    }
    assert len(set(wanted.values())) == 4
    memory = server.memory_mb()

    def ask(number: int) -> bool:
        name = ("first", "second")[number % 2]
        kind = number % 5
        if kind == 0:
            record = server.infer("findings", f"image={name}", output="json").params["record"]
            return record["scan"]["file"] == f"{name}.nii.gz" and np.allclose(
                probabilities(record), expected(answered[name]), atol=1e-4
            )
        if kind == 1:
            found = server.infer("findings_points", f"image={name}").params["findings"]
            return found == pytest.approx(
                {f.name: f.probability for f in answered[name].record.findings if f.present}, abs=1e-4
            )
        query = (QUERY, "calcified aorta")[kind % 2]
        answer = server.infer("evidence", f"image={name}", {"query": query}, output="" if kind == 4 else "json")
        return answer.params["text"] == query and answer.params["score"] == pytest.approx(wanted[name, query], abs=1e-5)

    with ThreadPoolExecutor(8) as clients:
        assert all(clients.map(ask, range(50)))
    assert server.memory_mb() - memory < 300
    assert server.process.poll() is None


def test_eight_clients_at_one_new_scan_encode_it_once(server: LiveServer, scans: dict[str, Path]) -> None:
    image = nib.load(scans["first"])
    shifted = nib.Nifti1Image(np.asarray(image.dataobj)[:, :, :-3], image.affine)
    session = server.upload(("x.nii", shifted.to_bytes()))
    before = server.encoded()
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(lambda _: server.infer("findings", f"session_id={session}", output="json"), range(8))
        )
    assert server.encoded() == before + 1
    assert len({json.dumps(answer.params["record"]["findings"]) for answer in answers}) == 1
