"""Prometheus metrics of one replica. README.md lists their names and labels.

Ray's metric objects flush every few seconds and switch threads at each call, so calling them in
every request is slow. `Metrics` therefore collects values in plain Python, and `report` hands them
to Ray once a second, in another thread than the event loop's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from ray.serve import metrics as ray_metrics

from pawcast.registry import ModelVersion

_SECONDS_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]
_PHOTOS_BUCKETS = [1, 2, 4, 8, 16, 32, 48, 64, 128, 256]

_Counts = Counter[tuple[ray_metrics.Counter, tuple[tuple[str, str], ...]]]
_Observations = list[tuple[ray_metrics.Histogram, float, dict[str, str]]]


class Metrics:
    """The metrics of one replica. Create it in the replica's process: Ray adds a replica label."""

    def __init__(self) -> None:
        self._requests = ray_metrics.Counter("pawcast_requests", "Requests answered.", ("method", "route", "status"))
        self._request_seconds = _seconds(
            "pawcast_request_seconds", "Time from a request's headers to the end of its response.", "route"
        )
        self._photos = ray_metrics.Counter("pawcast_photos", "Photos by outcome.", ("outcome",))
        self._waiting = ray_metrics.Gauge("pawcast_waiting_photos", "Photos accepted and not yet answered.")
        self._batch = ray_metrics.Histogram("pawcast_batch_photos", "Photos in a batch of the engine.", _PHOTOS_BUCKETS)
        self._decode = _seconds("pawcast_decode_seconds", "Time to decode a request's photos, summed over threads.")
        self._inference = _seconds("pawcast_inference_seconds", "Time to compute one batch.")
        self._version = ray_metrics.Gauge("pawcast_model_version", "The model version that answers.", ("model",))
        self._counts: _Counts = Counter()
        self._observations: _Observations = []

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count and time an answered request. `route` is a route's template, not the sent path."""
        self._count(self._requests, method=method, route=route, status=str(status))
        self._observations.append((self._request_seconds, seconds, {"route": route}))

    def classified(self, outcomes: Iterable[str], decode_seconds: float) -> None:
        """Count a request's photos by outcome; record the time to decode them, summed over threads.

        An outcome is `classified`, `unreadable` or `wrong_size`.
        """
        for outcome in outcomes:
            self._count(self._photos, outcome=outcome)
        self._observations.append((self._decode, decode_seconds, {}))

    def batch(self, photos: int, seconds: float) -> None:
        """Record the size of a batch of the engine and the time to compute it."""
        self._observations += [(self._batch, photos, {}), (self._inference, seconds, {})]

    async def report(self, waiting: int, version: ModelVersion | None) -> None:
        """Hand everything collected since the last call to Ray, and set the gauges.

        Call it about once a second, even without requests: Ray drops a gauge after exporting it.

        Args:
            waiting: Photos accepted and not yet answered.
            version: The model version that answers; None without a model.
        """
        counts, self._counts = self._counts, Counter()
        observations, self._observations = self._observations, []
        await asyncio.to_thread(self._export, counts, observations, waiting, version)

    def _export(self, counts: _Counts, observations: _Observations, waiting: int, version: ModelVersion | None) -> None:
        for (counter, labels), count in counts.items():
            counter.inc(count, dict(labels))
        for histogram, value, labels_dict in observations:
            histogram.observe(value, labels_dict)
        self._waiting.set(waiting, {})
        if version:
            self._version.set(version.version, {"model": version.model})

    def _count(self, counter: ray_metrics.Counter, **labels: str) -> None:
        self._counts[counter, tuple(labels.items())] += 1


def _seconds(name: str, description: str, *labels: str) -> ray_metrics.Histogram:
    return ray_metrics.Histogram(name, description, _SECONDS_BUCKETS, labels)
