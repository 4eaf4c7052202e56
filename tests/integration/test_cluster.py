"""README's commands for a cluster, at small scale: submit a job, deploy, predict in bulk, stop."""

from __future__ import annotations

import csv
import json
import time

import httpx
import numpy as np
import pytest

from pawcast.data import sources
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.store import open_store
from tests.support.cluster import Cluster
from tests.support.ray_head import FOR_EVER, TRAIN, is_training, wait_until_released
from tests.support.services import Photos, result_of, wait_for

SUBMIT = ("ray", "job", "submit", "--runtime-env", "infra/runtime-env.yaml")


@pytest.fixture(scope="module")
def url(ready: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Train by a submitted job, promote, deploy; return the service's address."""
    done = ready.run(*SUBMIT, "--", "python", "jobs/train.py", *TRAIN, "--set", "epochs=2", "--model", "pets")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pets@1" in done.stdout
    assert ready.run("python", "jobs/promote.py", "pets", "latest", "production").returncode == 0
    ready.deploy(tmp_path_factory.mktemp("serve"), {"model": "pets@production"})
    wait_for(lambda: ready.serves("pets"), 120)
    return ready.url


def test_bulk_prediction_gives_one_row_a_photo_and_agrees_with_in_process(ready, url, photos: Photos, tmp_path):
    done = ready.run(
        *("python", "jobs/bulk_predict.py", "--images", str(photos.unlabelled), "--url", url),
        *("--out", str(tmp_path), "--clip", "0", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert result_of(done.stdout)["photos"] == 40
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(i) for i in range(1, 41)]
    engine = Engine.load(open_store(str(ready.store)), "pets@production")
    listed = sources.scan(str(photos.unlabelled)).photos
    expected = list(predict_scores(engine, sources.read(str(photos.unlabelled), listed)))
    np.testing.assert_allclose([float(row["label"]) for row in rows], expected, atol=2e-6)


def test_the_surface(url, photos: Photos):
    photo = (photos.unlabelled_folder / "1.jpg").read_bytes()
    one = httpx.post(f"{url}/v1/classify", content=photo, headers={"content-type": "image/jpeg"})
    assert one.status_code == 200
    answer = one.json()["predictions"][0]
    assert answer["scores"][answer["label"]] == answer["probability"] >= 0.5
    assert sum(answer["scores"].values()) == pytest.approx(1)
    form = [("photo", ("a.jpg", photo)), ("photo", ("b.jpg", b"junk")), ("photo", ("c.jpg", photo))]
    many = httpx.post(f"{url}/v1/classify", files=form).json()["predictions"]
    assert [item["id"] for item in many] == ["a.jpg", "b.jpg", "c.jpg"]
    assert "error" in many[1]
    assert many[0]["label"] == many[2]["label"] == answer["label"]
    assert httpx.get(f"{url}/v1/model").json()["model"] == "pets"
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert "/v1/classify" in httpx.get(f"{url}/openapi.json").json()["paths"]
    page = httpx.get(url)
    assert "static/app.js" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert httpx.get(f"{url}/static/app.js").headers["content-type"].startswith("text/javascript")
    why = httpx.post(f"{url}/v1/explain", content=photo, headers={"content-type": "image/jpeg"}, timeout=60)
    assert why.headers["content-type"] == "image/png"
    assert why.headers["pawcast-label"] == answer["label"]
    docs = httpx.get(f"{url}/docs").text
    assert "http://" not in docs
    assert "https://" not in docs


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"junk", "image/jpeg", 422),
        (b"", "image/jpeg", 422),
        (b"{}", "application/json", 415),
        (b"junk", "multipart/form-data; boundary=x", 400),
        (b"0" * (64 * 2**20 + 1), "application/octet-stream", 413),
    ],
)
def test_bad_requests_get_a_clear_4xx(url, content, kind, status):
    response = httpx.post(f"{url}/v1/classify", content=content, headers={"content-type": kind}, timeout=60)
    assert response.status_code == status
    assert response.json()["error"]


@pytest.mark.long
def test_a_stopped_job_frees_its_gpus(ready, url):
    submitted = ready.run(
        *(*SUBMIT, "--no-wait", "--submission-id", "to-be-stopped", "--"),
        *("python", "jobs/train.py", *TRAIN, *FOR_EVER),
    )
    assert submitted.returncode == 0, submitted.stderr
    wait_for(lambda: is_training(ready), 150, lambda: ready.run("ray", "job", "logs", "to-be-stopped").stdout)
    stopping = time.monotonic()
    assert ready.run("ray", "job", "stop", "to-be-stopped").returncode == 0
    assert time.monotonic() - stopping < 60
    wait_until_released(ready)
    status = ready.run("ray", "job", "status", "to-be-stopped")
    assert "STOPPED" in (status.stdout + status.stderr).upper(), json.dumps(status.stdout)
