"""Classify the photos of a request: admission limit, batcher, predictions, metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pawcast.errors import BusyError, ImageError, ImageSizeError
from pawcast.inference.predictor import Prediction, to_prediction
from pawcast.registry import ModelVersion
from pawcast.store import Store

from .limits import ServiceLimits
from .metrics import Metrics
from .model_manager import CHECK_SECONDS, LoadedModel, ModelManager

_REPORT_SECONDS = 1.0

PhotoInput = bytes | np.ndarray | ImageError


class ClassifyResult(NamedTuple):
    """The predictions for one request.

    Attributes:
        version: The one version that made all predictions.
        predictions: For each photo in order, its prediction or the reason why there is none.
        decode_seconds: Time to decode the photos, summed over threads.
        wait_seconds: Time until the engine began with the first photo, decoding included.
        inference_seconds: Time from then until the engine had finished the last photo.
    """

    version: ModelVersion
    predictions: list[Prediction | ImageError]
    decode_seconds: float
    wait_seconds: float
    inference_seconds: float


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
        await self.manager.start()
        if self._reporting is None:
            await self._report()
            self._reporting = asyncio.get_running_loop().create_task(self._report_every_second())
        if (error := self.manager.pending_error) and not await asyncio.to_thread(is_only_replica):
            await self.stop()
            raise error

    async def stop(self) -> None:
        """Unload the model, and report the last metrics."""
        await self.manager.stop()
        if self._reporting is not None:
            self._reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reporting
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
        with self._admit(len(photos)):
            pending = loaded.batcher.submit(photos)
            await pending.done
        classes = loaded.version.classes
        predictions = [
            result if isinstance(result, ImageError) else to_prediction(result, classes) for result in pending.results
        ]
        self.metrics.decoded(pending.decode_seconds)
        self.metrics.photos(map(_outcome, predictions))
        return ClassifyResult(
            loaded.version,
            predictions,
            decode_seconds=pending.decode_seconds,
            wait_seconds=pending.started_at - pending.submitted_at,
            inference_seconds=pending.finished_at - pending.started_at,
        )

    @contextlib.contextmanager
    def _admit(self, photos: int) -> Iterator[None]:
        """Count photos as waiting while the block runs, from before their decoding on."""
        if self.waiting_photos + photos > self.limits.waiting_photos:
            raise BusyError(
                "The server is busy",
                received=f"{photos:,} photos while {self.waiting_photos:,} are waiting",
                expected=f"at most {self.limits.waiting_photos:,} waiting photos",
                fix="try again in a second",
            )
        self.waiting_photos += photos
        try:
            yield
        finally:
            self.waiting_photos -= photos

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
