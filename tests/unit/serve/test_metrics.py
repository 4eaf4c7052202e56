"""Metrics reach Ray as sums, with their labels, each exactly once."""

from __future__ import annotations

import asyncio

import pytest
from ray.serve import metrics as ray_metrics

from pawcast.store import open_store
from pawcast_serve.classifier import Classifier
from pawcast_serve.metrics import Metrics
from tests.support import served
from tests.support.served import version

Exported = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    """The values that counters and gauges get."""
    values: Exported = []

    def record(self, value, tags):
        values.append((self.info["name"], value, tags))

    monkeypatch.setattr(ray_metrics.Counter, "inc", record)
    monkeypatch.setattr(ray_metrics.Gauge, "set", record)
    return values


def test_counts_are_exported_as_sums_and_once(exported):
    metrics = Metrics()
    metrics.classified(["classified", "unreadable", "classified"], 0.1)
    metrics.classified(["classified"], 0.1)
    for status in (200, 200, 429):
        metrics.request("POST", "/v1/classify", status, 0.1)
    assert exported == []
    asyncio.run(metrics.report(7, version()))
    labels = {"method": "POST", "route": "/v1/classify"}
    gauges = [("pawcast_waiting_photos", 7, {}), ("pawcast_model_version", 1, {"model": "pets"})]
    assert exported == [
        ("pawcast_photos", 3, {"outcome": "classified"}),
        ("pawcast_photos", 1, {"outcome": "unreadable"}),
        ("pawcast_requests", 2, {**labels, "status": "200"}),
        ("pawcast_requests", 1, {**labels, "status": "429"}),
        *gauges,
    ]
    exported.clear()
    asyncio.run(metrics.report(7, version()))
    assert exported == gauges


def test_observations_are_exported_once(exported, monkeypatch):
    observed: Exported = []
    monkeypatch.setattr(
        ray_metrics.Histogram, "observe", lambda self, value, tags: observed.append((self.info["name"], value, tags))
    )
    metrics = Metrics()
    metrics.classified([], 0.1)
    metrics.batch(3, 0.5)
    metrics.request("POST", "/v1/classify", 200, 0.2)
    assert observed == []
    asyncio.run(metrics.report(0, None))
    timed = [
        ("pawcast_decode_seconds", 0.1, {}),
        ("pawcast_batch_photos", 3, {}),
        ("pawcast_inference_seconds", 0.5, {}),
        ("pawcast_request_seconds", 0.2, {"route": "/v1/classify"}),
    ]
    assert observed == timed
    asyncio.run(metrics.report(0, None))
    assert observed == timed


def test_without_a_model_no_version_is_exported(exported):
    asyncio.run(Metrics().report(0, None))
    assert exported == [("pawcast_waiting_photos", 0, {})]


def test_a_service_reports_when_it_starts_and_when_it_stops(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("pawcast_serve.classifier._REPORT_SECONDS", 600)

    async def scenario() -> None:
        async with served.client(Classifier(open_store(str(tmp_path)), "pets@production")) as http:
            await http.get("/healthz")
            assert exported == [("pawcast_waiting_photos", 0, {})]

    asyncio.run(scenario())
    request = ("pawcast_requests", 1, {"method": "GET", "route": "/healthz", "status": "200"})
    assert exported[1:] == [request, ("pawcast_waiting_photos", 0, {})]
