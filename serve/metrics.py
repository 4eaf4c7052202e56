"""What the service counts and times, at Ray's Prometheus endpoints; the names there begin with `ray_pawcast_`.

requests{method,route,status}   request_seconds{route}   errors{kind}   model_version{model}
photos{outcome}                 waiting_photos           batch_photos   decode_seconds   inference_seconds

Ray exports numbers every few seconds, and gives way to other threads at each that it takes. So they are kept here
first, sums where they add up, and handed over together by `report`, beside the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Iterable

from ray.serve import metrics

from pawcast.registry import ModelVersion

_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]
_PHOTOS = [1, 2, 4, 8, 16, 32, 48, 64, 128, 256]

_Counted = Tally[tuple[metrics.Counter, tuple[tuple[str, str], ...]]]
_Observed = list[tuple[metrics.Histogram, float, dict[str, str]]]


class Metrics:
    """The metrics of one replica; Ray adds which one it is. Make it where that replica runs."""

    def __init__(self) -> None:
        self._requests = metrics.Counter("pawcast_requests", "Requests answered.", ("method", "route", "status"))
        self._request_seconds = _seconds("pawcast_request_seconds", "From a request's headers to its answer.", "route")
        self._photos = metrics.Counter("pawcast_photos", "Photos, by what came of them.", ("outcome",))
        self._errors = metrics.Counter("pawcast_errors", "Requests refused or failed.", ("kind",))
        self._waiting = metrics.Gauge("pawcast_waiting_photos", "Photos taken on and not yet answered.")
        self._batch = metrics.Histogram("pawcast_batch_photos", "Photos in a batch of the engine.", _PHOTOS)
        self._decode = _seconds("pawcast_decode_seconds", "Spent decoding a request's photos, by all threads.")
        self._inference = _seconds("pawcast_inference_seconds", "To run one batch.")
        self._version = metrics.Gauge("pawcast_model_version", "The model version that answers.", ("model",))
        self._counted: _Counted = Tally()
        self._observed: _Observed = []

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is a path's template, never what a client sent."""
        self._count(self._requests, method=method, route=route, status=str(status))
        self._observed.append((self._request_seconds, seconds, {"route": route}))

    def error(self, kind: str) -> None:
        """Count a request that was refused or failed."""
        self._count(self._errors, kind=kind)

    def photos(self, outcomes: Iterable[str]) -> None:
        """Count photos by what came of them: `answered`, or the kind of error."""
        for outcome in outcomes:
            self._count(self._photos, outcome=outcome)

    def decoded(self, seconds: float) -> None:
        """Time the decoding of a request's photos, in seconds of all threads together."""
        self._observed.append((self._decode, seconds, {}))

    def batch(self, photos: int, seconds: float) -> None:
        """Time a batch of the engine."""
        self._observed += [(self._batch, photos, {}), (self._inference, seconds, {})]

    async def report(self, waiting: int, version: ModelVersion | None) -> None:
        """Hand to Ray what was counted since the last time, and what is true now.

        Call it every second or so, also when nothing happens: Ray forgets a gauge that it has exported.

        Args:
            waiting: Photos taken on and not yet answered.
            version: The model version that answers; None if none does.
        """
        counted, self._counted = self._counted, Tally()
        observed, self._observed = self._observed, []
        await asyncio.to_thread(self._hand_over, counted, observed, waiting, version)

    def _hand_over(self, counted: _Counted, observed: _Observed, waiting: int, version: ModelVersion | None) -> None:
        for (counter, labels), number in counted.items():
            counter.inc(number, dict(labels))
        for histogram, value, tags in observed:
            histogram.observe(value, tags)
        self._waiting.set(waiting, {})
        if version:
            self._version.set(version.version, {"model": version.model})

    def _count(self, counter: metrics.Counter, **tags: str) -> None:
        self._counted[counter, tuple(tags.items())] += 1


def _seconds(name: str, description: str, *tags: str) -> metrics.Histogram:
    return metrics.Histogram(name, description, _SECONDS, tags)
