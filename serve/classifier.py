"""Classify the photos of a request: admission limit, batcher, predictions, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pawcast.errors import ImageError, ImageSizeError
from pawcast.inference.predictor import Prediction, to_prediction
from pawcast.registry import ModelVersion
from pawcast.store import Store

from .limits import ServiceLimits, busy
from .metrics import Metrics
from .model_manager import CHECK_SECONDS, LoadedModel, ModelManager

_REPORT_SECONDS = 1.0

PhotoInput = bytes | np.ndarray | ImageError


class ClassifyResult(NamedTuple):
    """The predictions for one request.

    Attributes:
        version: The one version that made all predictions.
        predictions: For each photo in order, its prediction or the reason why there is none.
        seconds: `decode`: to decode the photos, summed over threads. `wait`: until the engine began
            with the first photo, decoding included. `inference`: from then until the engine had
            finished the last photo.
    """

    version: ModelVersion
    predictions: list[Prediction | ImageError]
    seconds: dict[str, float]


class Classifier:
    """Classifies photos with the model that a ref points at.

    Without a model, the classifier starts nevertheless: each request gets a `ServiceError` that
    says why, until the manager finds a model. Call `start` before and `stop` after use.

    Args:
        store: Where the model is.
        model: `name@ref`, such as `catdog@production`.
        limits: The limits of this replica.
        check_seconds: Seconds between two look-ups of the ref.

    Attributes:
        limits: As above.
        metrics: What this replica counts and times.
        manager: The owner of the model.
        waiting_photos: Photos accepted and not yet answered.
    """

    def __init__(
        self, store: Store, model: str, limits: ServiceLimits | None = None, check_seconds: float = CHECK_SECONDS
    ) -> None:
        self.limits = limits or ServiceLimits()
        self.metrics = Metrics()
        self.manager = ModelManager(store, model, self.metrics.batch, check_seconds)
        self.waiting_photos = 0
        self._reporting: asyncio.Task[None] | None = None

    async def start(self, is_only_replica: Callable[[], bool] = lambda: True) -> None:
        """Load the model if possible, follow its ref, report metrics. A second call does nothing.

        Args:
            is_only_replica: Returns whether no other replica is running. The only replica starts
                without a model too, so that it can say what is wrong. Beside others, a replica
                without a model fails to start, so that it never replaces one that has a model.

        Raises:
            PawcastError: Why the model can't be loaded, if other replicas are running.
        """
        if self._reporting:
            return
        await self.manager.start()
        await self._report()
        self._reporting = asyncio.create_task(self._report_every_second())
        if (error := self.manager.pending_error) and not await asyncio.to_thread(is_only_replica):
            await self.stop()
            raise error

    async def stop(self) -> None:
        """Unload the model, and report the last metrics."""
        await self.manager.stop()
        if self._reporting:
            self._reporting.cancel()
            await self._report()

    async def classify(self, photos: Sequence[PhotoInput], model: LoadedModel | None = None) -> ClassifyResult:
        """Return for each photo, in order, a prediction or the reason why there is none.

        Args:
            photos: For each photo the bytes of its file, its pixels (uint8 [height, width, 3],
                RGB), or an `ImageError` that says why there is neither.
            model: The model that answers; the one loaded now if None.

        Raises:
            BusyError: If too many photos are waiting already.
            ServiceError: If no model is loaded.
        """
        loaded = model or self.manager.loaded
        if self.waiting_photos + len(photos) > self.limits.waiting_photos:
            received = f"{len(photos):,} photos while {self.waiting_photos:,} are waiting"
            raise busy(received, f"at most {self.limits.waiting_photos:,} waiting photos")
        # They count as waiting from before their decoding on.
        self.waiting_photos += len(photos)
        try:
            pending = loaded.batcher.submit(photos)
            await pending.done
        finally:
            self.waiting_photos -= len(photos)
        classes = loaded.version.classes
        predictions = [
            result if isinstance(result, ImageError) else to_prediction(result, classes) for result in pending.results
        ]
        self.metrics.classified(map(_outcome, predictions), pending.decode_seconds)
        seconds = {
            "decode": pending.decode_seconds,
            "wait": pending.started_at - pending.submitted_at,
            "inference": pending.finished_at - pending.started_at,
        }
        return ClassifyResult(loaded.version, predictions, seconds)

    async def _report_every_second(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            await self._report()

    async def _report(self) -> None:
        await self.metrics.report(self.waiting_photos, self.manager.version)


def _outcome(prediction: Prediction | ImageError) -> str:
    if not isinstance(prediction, ImageError):
        return "classified"
    return "wrong_size" if isinstance(prediction, ImageSizeError) else "unreadable"
