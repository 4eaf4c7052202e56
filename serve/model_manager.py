"""The model in memory: load the version that a ref points at, follow the ref, swap versions."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pawcast import registry
from pawcast.errors import PawcastError, ServiceError
from pawcast.inference.batcher import MAX_CONCURRENT_BATCHES, Batcher
from pawcast.inference.engine import Engine
from pawcast.registry import ModelVersion
from pawcast.runtime.devices import usable_cpus
from pawcast.store import Store

CHECK_SECONDS = 10.0
_CHECK_SECONDS_WITHOUT_MODEL = 2.0
# A version that failed to load is tried again, since the cause may pass, but not at every check.
_RETRY_SECONDS = 60.0
# A batch that takes longer is stuck; even slow machines need a few seconds.
_STUCK_SECONDS = 120.0
# The largest photo takes about 1 GB to decode; the engine could not use more threads anyway.
_MAX_THREADS = 8
# New objects before Python's garbage collector runs. With the default of 700 it would run in every
# other request.
_GC_THRESHOLD = 20_000
_FIX = "train again, or promote another version"
# Ray keeps this logger's lines in the replica's log.
_log = logging.getLogger("ray.serve")


class LoadedModel(NamedTuple):
    """A model version in memory: its engine, and the batcher that feeds the engine.

    A request uses one `LoadedModel` from beginning to end.
    """

    engine: Engine
    batcher: Batcher

    @property
    def version(self) -> ModelVersion:
        """The version that the engine runs."""
        return self.engine.version


class _FailedLoad(NamedTuple):
    version: str
    retry_at: float
    error: PawcastError


class ModelManager:
    """Owns the model of one replica.

    The manager looks up the ref every few seconds. When the ref has moved, it loads and warms up
    the new version beside the old one, then swaps: later requests use the new version. If the new
    version can't be loaded, the old one keeps answering.

    Args:
        store: Where the model is.
        ref: `name@ref`, such as `catdog@production`.
        observe_batch: Called after each batch of the engine with its photos and its seconds.
        check_seconds: Seconds between two look-ups of the ref.

    Attributes:
        ref: As above.
        name: The model's name, without the ref.
        pending_error: Why the version that the ref points at doesn't answer; None if it does.
    """

    def __init__(
        self,
        store: Store,
        ref: str,
        observe_batch: Callable[[int, float], None] = lambda photos, seconds: None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self.ref, self.name = ref, ref.partition("@")[0]
        self.pending_error: PawcastError | None = None
        self._store, self._observe_batch, self._check_seconds = store, observe_batch, check_seconds
        self._loaded: LoadedModel | None = None
        self._failed_load: _FailedLoad | None = None
        self._garbage_frozen = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-manager")
        self._following: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The model that answers now. Raises `ServiceError` without one."""
        if self._loaded is None:
            raise ServiceError(
                f"The service has no model {self.ref}",
                received=self.pending_error,
                fix="run `pawcast train`, then `pawcast promote`; the service loads the version by itself",
            )
        return self._loaded

    @property
    def version(self) -> ModelVersion | None:
        """The version that answers now; None without a model."""
        return self._loaded.version if self._loaded else None

    def check_health(self) -> None:
        """Raise `ServiceError` if the engine is stuck; Ray then replaces the replica.

        A missing model is not a failure: a new replica would not find one either.
        """
        seconds = self._loaded.batcher.busy_seconds if self._loaded else 0
        if seconds > _STUCK_SECONDS:
            raise ServiceError(f"The engine has computed one batch for {seconds:.0f} s", expected="a few seconds")

    async def start(self) -> None:
        """Load the model if possible, and start following its ref."""
        await self.refresh()
        # Before the first request, so that no request waits for it.
        self._freeze_garbage()
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following the ref, and unload the model once the running requests are answered."""
        if self._following:
            self._following.cancel()
        self._thread.shutdown(wait=False)
        self._loaded = None

    async def refresh(self) -> None:
        """Look up the ref, and load and swap in the version it points at if that is another one."""
        loop, failed = asyncio.get_running_loop(), self._failed_load
        version: ModelVersion | None = None
        try:
            version = await loop.run_in_executor(self._thread, registry.resolve, self._store, self.ref)
            if self.version == version:
                self.pending_error = self._failed_load = None
                if not self._garbage_frozen:
                    self._freeze_garbage()
            elif failed and failed.version == version.name and time.monotonic() < failed.retry_at:
                self.pending_error = failed.error
            else:
                self._swap(await loop.run_in_executor(self._thread, _load_and_warm_up, self._store, version))
        except Exception as error:
            if not isinstance(error, PawcastError):
                # Keras and h5py raise many kinds of exceptions when weights don't fit the network.
                line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                error = PawcastError(
                    f"{version.name if version else self.ref} can't be loaded", received=line, fix=_FIX
                )
            self._note_failure(version, error)

    def _swap(self, engine: Engine) -> None:
        # One thread more than CPUs: it decodes the next batch while the others compute.
        threads = max(MAX_CONCURRENT_BATCHES, min(usable_cpus(), _MAX_THREADS)) + 1
        preprocess, observe = engine.version.preprocessing.apply, self._observe_batch
        batcher = Batcher(preprocess, engine.predict, engine.batch_sizes, observe, MAX_CONCURRENT_BATCHES, threads)
        # Requests that began with the old version keep it until they are answered.
        self._loaded = LoadedModel(engine, batcher)
        self.pending_error = self._failed_load = None
        # Freeze again at the next check, when requests no longer use the old version.
        self._garbage_frozen = False
        _log.info(f"{engine.version.name} now answers for {self.ref}.")

    def _note_failure(self, version: ModelVersion | None, error: PawcastError) -> None:
        if str(error) != str(self.pending_error):
            suffix = f" {self.version.name} keeps answering." if self.version else ""
            _log.error(f"{self.ref}: {error}{suffix}")
        self.pending_error = error
        if version:
            delay = _RETRY_SECONDS if self._loaded else 0
            self._failed_load = _FailedLoad(version.name, time.monotonic() + delay, error)

    def _freeze_garbage(self) -> None:
        """Collect garbage once, then exclude all present objects from later collections.

        A collection that walks the objects of TensorFlow and Keras takes an eighth of a second, in
        which no request proceeds.
        """
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        self._garbage_frozen = True

    async def _follow(self) -> None:
        while True:
            seconds = self._check_seconds if self._loaded else min(_CHECK_SECONDS_WITHOUT_MODEL, self._check_seconds)
            # Jitter: replicas that started together shouldn't ask the store at the same time.
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))
            await self.refresh()


def _load_and_warm_up(store: Store, version: ModelVersion) -> Engine:
    engine = Engine.from_version(store, version)
    grey = np.full((1, engine.size, engine.size, 3), 128, np.uint8)
    if not np.isfinite(engine.predict(grey)).all():
        raise PawcastError(f"{version.name} predicts NaN or infinity", fix=_FIX)
    return engine
