"""Photos to predictions: taken on within a limit, decoded and batched in threads, answered by one model version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pawcast.errors import BusyError, ImageError, ImageSizeError, ServiceError
from pawcast.inference.batcher import MAX_CONCURRENT_BATCHES, Batcher
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import Prediction, to_prediction
from pawcast.registry import ModelVersion
from pawcast.runtime.devices import usable_cpus
from pawcast.store import Store

from .limits import ServiceLimits
from .metrics import Metrics
from .model_manager import CHECK_SECONDS, LoadedModel, Rollout

# The largest photo takes some 1 GB to decode; more threads would gain nothing that the engine could use.
_MAX_THREADS = 8
# No batch takes so long, on any machine that could be of use.
_STUCK_SECONDS = 120.0
_REPORT_SECONDS = 1.0

PhotoInput = bytes | np.ndarray | ImageError


class ClassifyResult(NamedTuple):
    """A request's answer.

    Attributes:
        version: The one version that gave all of it.
        predictions: For each photo in order, or the reason why there is none.
        decode: Seconds that threads spent decoding the photos, added up.
        wait: Seconds until the engine took the first of them, its decoding included.
        inference: Seconds from then until the last was done.
    """

    version: ModelVersion
    predictions: list[Prediction | ImageError]
    decode: float
    wait: float
    inference: float


class Service:
    """Answers for one model ref of a store.

    A missing or broken model doesn't stop the service: it says so on every request, looks again every two
    seconds, and serves as soon as there is one. Call `start` before, and `stop` at the end.

    Args:
        store: Where the model is.
        model: `name@ref`.
        limits: What to take on at most.
        check_seconds: How often to look where the ref points.
    """

    def __init__(
        self, store: Store, model: str, limits: ServiceLimits | None = None, check_seconds: float = CHECK_SECONDS
    ) -> None:
        self.limits = limits or ServiceLimits()
        self.metrics = Metrics()
        self.rollout = Rollout(store, model, self._batches, check_seconds)
        self._taken = 0
        self._reporting: asyncio.Task[None] | None = None

    async def start(self, alone: Callable[[], bool] = lambda: True) -> None:
        """Load and warm up the model, if there is one, and follow its ref from now on. Once is enough.

        Args:
            alone: Tells whether no other replica answers. One that can't load its model serves nevertheless if it is
                alone, so as to say what is wrong; beside others it doesn't start, so that it never replaces them.

        Raises:
            PawcastError: Why the model can't be loaded, if this replica isn't alone.
        """
        await self.rollout.start()
        if self._reporting is None:
            await self._report()
            self._reporting = asyncio.get_running_loop().create_task(self._report_again_and_again())
        if (failure := self.rollout.failure) and not await asyncio.to_thread(alone):
            await self.stop()
            raise failure

    async def stop(self) -> None:
        """Stop following the ref, and report what was counted last."""
        await self.rollout.stop()
        if self._reporting is not None:
            self._reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reporting
            await self._report()

    def check_health(self) -> None:
        """Raise `ServiceError` if the engine hangs; Ray then replaces the replica. No model is no reason to."""
        busy = self.rollout.busy_seconds
        if busy > _STUCK_SECONDS:
            raise ServiceError("The engine hangs", received=f"a batch of {busy:.0f} s", expected="seconds")

    @property
    def name(self) -> str:
        """The model's name, without its ref."""
        return self.rollout.model.partition("@")[0]

    async def version(self) -> ModelVersion:
        """Return the version that answers. Raises `ServiceError` if none could be loaded."""
        return self.rollout.loaded.version

    async def engine(self) -> Engine:
        """Return the engine that answers. Raises `ServiceError` if no model could be loaded."""
        return self.rollout.loaded.engine

    async def classify(self, photos: Sequence[PhotoInput], loaded: LoadedModel | None = None) -> ClassifyResult:
        """Return a prediction, or the reason why there is none, for each photo, in order.

        Args:
            photos: A file's bytes, decoded RGB pixels (uint8 [h, w, 3]), or why there is neither.
            loaded: Who shall answer; whatever is loaded now if None.

        Raises:
            BusyError: If too many photos are taken on already.
            ServiceError: If there is no model.
        """
        loaded = loaded or self.rollout.loaded
        # Before anything is decoded: what waits to be decoded makes others wait as well.
        self._take(len(photos))
        try:
            call = loaded.batcher.submit(photos)
            await call.done
        finally:
            self._take(-len(photos))
        classes = loaded.version.classes
        predictions = [item if isinstance(item, ImageError) else to_prediction(item, classes) for item in call.results]
        self.metrics.decoded(call.decode_seconds)
        self.metrics.photos(map(_outcome, predictions))
        wait, inference = call.started_at - call.submitted_at, call.finished_at - call.started_at
        return ClassifyResult(loaded.version, predictions, call.decode_seconds, wait, inference)

    def _take(self, photos: int) -> None:
        if self._taken + photos > self.limits.waiting_photos:
            raise BusyError(
                "The server is busy", received=f"{self._taken:,} photos taken on, {photos:,} on top",
                expected=f"at most {self.limits.waiting_photos:,}", fix="try again in a second",
            )  # fmt: skip
        self._taken += photos

    async def _report_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            await self._report()

    async def _report(self) -> None:
        version: ModelVersion | None = None
        with contextlib.suppress(ServiceError):
            version = self.rollout.loaded.version
        await self.metrics.report(self._taken, version)

    def _batches(self, engine: Engine) -> Batcher:
        # One more than CPUs: it decodes the next batch while others compute.
        threads = max(MAX_CONCURRENT_BATCHES, min(usable_cpus(), _MAX_THREADS)) + 1
        decode = engine.version.preprocessing.apply
        return Batcher(decode, engine.predict, engine.batch_sizes, self.metrics.batch, MAX_CONCURRENT_BATCHES, threads)


def _outcome(prediction: Prediction | ImageError) -> str:
    if not isinstance(prediction, ImageError):
        return "answered"
    return "size" if isinstance(prediction, ImageSizeError) else "unreadable"
