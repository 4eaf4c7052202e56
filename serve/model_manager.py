"""The model version that answers, renewed without a pause when its ref moves."""

from __future__ import annotations

import asyncio
import contextlib
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
from pawcast.inference.batcher import Batcher
from pawcast.inference.engine import Engine
from pawcast.registry import ModelVersion
from pawcast.store import Store

CHECK_SECONDS = 10.0
_MISSING_SECONDS = 2.0
# A version that failed is tried again, since what was wrong may pass; but not at each check.
_FAILED_SECONDS = 60.0
# Objects that may become garbage before the collector looks.
_OBJECTS = 20_000
# Ray keeps what goes to this logger in the replica's log.
_log = logging.getLogger("ray.serve")


class LoadedModel(NamedTuple):
    """A version in memory, and the way to its engine. A request uses one from beginning to end."""

    engine: Engine
    batcher: Batcher

    @property
    def version(self) -> ModelVersion:
        """What it runs."""
        return self.engine.version


class _Failed(NamedTuple):
    version: str
    until: float
    error: PawcastError


class Rollout:
    """Follows one model ref of a store.

    Whether the ref moved is looked up every few seconds. A new version is loaded and warmed up beside the old one,
    then takes over at once for all requests that come after. If it can't be loaded, the old one goes on.

    Args:
        store: Where the model is.
        model: `name@ref`.
        batcher: Makes the batcher of an engine.
        check_seconds: How often to look.

    Attributes:
        model: As above.
        failure: Why the ref's version isn't the one that answers; None if it is.
    """

    def __init__(
        self,
        store: Store,
        model: str,
        batcher: Callable[[Engine], Batcher],
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self.model = model
        self.failure: PawcastError | None = None
        self._store, self._batcher, self._check_seconds = store, batcher, check_seconds
        self._loaded: LoadedModel | None = None
        self._failed: _Failed | None = None
        self._settled = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._watching: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> LoadedModel:
        """What answers now. Raises `ServiceError` if there is nothing."""
        if self._loaded is None:
            raise ServiceError(
                f"The service has no model {self.model}", received=self.failure,
                fix="train and promote one; the service will find it by itself",
            )  # fmt: skip
        return self._loaded

    @property
    def busy_seconds(self) -> float:
        """For how long the engine has been at its present batch."""
        return self._loaded.batcher.busy_seconds if self._loaded else 0.0

    async def start(self) -> None:
        """Load the model, if that is possible, and begin to follow its ref. Does nothing if it was called before."""
        if self._watching is not None:
            return
        await self.check()
        # Now, when nobody waits for an answer yet.
        self._settle()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Follow the ref no longer; what is loaded goes on answering."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        self._thread.shutdown(wait=False)

    async def check(self) -> None:
        """Look where the ref points, and have that version answer if it can be loaded."""
        loop = asyncio.get_running_loop()
        version: ModelVersion | None = None
        try:
            version = await loop.run_in_executor(self._thread, registry.resolve, self._store, self.model)
            if self._loaded is not None and self._loaded.version == version:
                self.failure = self._failed = None
                if not self._settled:
                    self._settle()
                return
            if self._failed and self._failed.version == version.name and time.monotonic() < self._failed.until:
                self.failure = self._failed.error
                return
            engine = await loop.run_in_executor(self._thread, _load, self._store, version)
        except PawcastError as error:
            self._refuse(version, error)
        except Exception as error:
            # Keras and its file format raise what they like when weights and network don't fit.
            line = " ".join(str(error).split())[:300]
            what = f"{version.name if version else self.model} can't be loaded"
            self._refuse(version, PawcastError(what, received=f"{type(error).__name__}: {line}"))
        else:
            self._loaded = LoadedModel(engine, self._batcher(engine))
            self.failure = self._failed = None
            # At the next look, when no request uses the old one any more.
            self._settled = False
            _log.info(f"{version.name} answers for {self.model}.")

    def _refuse(self, version: ModelVersion | None, error: PawcastError) -> None:
        if str(error) != str(self.failure):
            goes_on = f"; {self._loaded.version.name} goes on answering" if self._loaded else ""
            _log.error(f"{self.model}: {error}{goes_on}")
        self.failure = error
        wait = _FAILED_SECONDS if self._loaded else 0
        if version:
            self._failed = _Failed(version.name, time.monotonic() + wait, error)

    def _settle(self) -> None:
        """Take away what nothing refers to any more, and have Python's collector leave the rest alone from now on.

        To walk all that TensorFlow and Keras are made of takes it an eighth of a second, in which no request goes on.
        Nor does it look after every other request, as Python's own threshold of 700 objects would have it.
        """
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_OBJECTS)
        self._settled = True

    async def _watch(self) -> None:
        while True:
            pause = self._check_seconds if self._loaded else min(_MISSING_SECONDS, self._check_seconds)
            # Replicas that started together need not ask the store together.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            await self.check()


def _load(store: Store, version: ModelVersion) -> Engine:
    engine = Engine.from_version(store, version)
    grey = np.full((1, engine.size, engine.size, 3), 128, np.uint8)
    if not np.isfinite(engine.predict(grey)).all():
        raise PawcastError(f"{version.name} answers no number", fix="train again, or promote another version")
    return engine
