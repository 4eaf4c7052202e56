"""What the service counts reaches Ray: added up, with its labels, nothing twice and nothing lost."""

from __future__ import annotations

import asyncio

import pytest
from ray.serve import metrics as ray_metrics

from pawcast.store import open_store
from pawcast_serve.metrics import Metrics
from pawcast_serve.service import Service
from tests.support import served
from tests.support.served import version

Handed = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Handed:
    """What Ray is told."""
    found: Handed = []

    def note(self, value, tags):
        found.append((self.info["name"], value, tags))

    monkeypatch.setattr(ray_metrics.Counter, "inc", note)
    monkeypatch.setattr(ray_metrics.Gauge, "set", note)
    return found


def test_what_was_counted_is_handed_over_in_sums_and_once(handed):
    metrics = Metrics()
    metrics.photos(["answered", "unreadable", "answered"])
    metrics.photos(["answered"])
    metrics.error("busy")
    for status in (200, 200, 429):
        metrics.request("POST", "/v1/classify", status, 0.1)
    assert handed == []
    asyncio.run(metrics.report(7, version()))
    asked = {"method": "POST", "route": "/v1/classify"}
    now = [("pawcast_waiting_photos", 7, {}), ("pawcast_model_version", 1, {"model": "pets"})]
    assert handed == [
        ("pawcast_photos", 3, {"outcome": "answered"}), ("pawcast_photos", 1, {"outcome": "unreadable"}),
        ("pawcast_errors", 1, {"kind": "busy"}),
        ("pawcast_requests", 2, {**asked, "status": "200"}), ("pawcast_requests", 1, {**asked, "status": "429"}),
        *now,
    ]  # fmt: skip
    handed.clear()
    asyncio.run(metrics.report(7, version()))
    assert handed == now


def test_what_was_timed_is_handed_over_once(handed, monkeypatch):
    seen: Handed = []
    monkeypatch.setattr(
        ray_metrics.Histogram, "observe", lambda self, value, tags: seen.append((self.info["name"], value, tags))
    )
    metrics = Metrics()
    metrics.decoded(0.1)
    metrics.batch(3, 0.5)
    metrics.request("POST", "/v1/classify", 200, 0.2)
    assert seen == []
    asyncio.run(metrics.report(0, None))
    timed = [
        ("pawcast_decode_seconds", 0.1, {}), ("pawcast_batch_photos", 3, {}), ("pawcast_inference_seconds", 0.5, {}),
        ("pawcast_request_seconds", 0.2, {"route": "/v1/classify"}),
    ]  # fmt: skip
    assert seen == timed
    asyncio.run(metrics.report(0, None))
    assert seen == timed


def test_without_a_model_no_version_is_told(handed):
    asyncio.run(Metrics().report(0, None))
    assert handed == [("pawcast_waiting_photos", 0, {})]


def test_a_service_reports_at_once_and_what_is_left_when_it_stops(handed, tmp_path, monkeypatch):
    monkeypatch.setattr("pawcast_serve.service._REPORT_SECONDS", 600)

    async def scenario() -> None:
        async with served.client(Service(open_store(str(tmp_path)), "pets@production")) as http:
            await http.get("/healthz")
            assert handed == [("pawcast_waiting_photos", 0, {})]

    asyncio.run(scenario())
    asked = ("pawcast_requests", 1, {"method": "GET", "route": "/healthz", "status": "200"})
    assert handed[1:] == [asked, ("pawcast_waiting_photos", 0, {})]
