"""A model behind the HTTP surface: loaded when there is one, fed by decoding threads and batches."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pawcast import images
from pawcast.devices import usable_cpus
from pawcast.errors import ImageError, PawcastError, ServiceError
from pawcast.inference.batcher import Batcher
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import Prediction, describe
from pawcast.registry import Version
from pawcast.store import Store

_RETRY_SECONDS = 2.0


class Service:
    """Answers for one model ref of a store.

    A missing or broken model doesn't stop the service: it says so on every request, looks again every two
    seconds at most, and serves as soon as there is one.
    """

    def __init__(self, store: Store, model: str) -> None:
        self._store, self._model = store, model
        self._decoders = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="decode")
        self._engine: Engine | None = None
        self._batcher: Batcher | None = None
        self._loading = asyncio.Lock()
        self._failure: PawcastError | None = None
        self._tried = -_RETRY_SECONDS

    async def version(self) -> Version:
        """Return the version that answers. Raises `ServiceError` if none can be loaded."""
        return (await self.engine()).version

    async def engine(self) -> Engine:
        """Return the engine that answers. Raises `ServiceError` if no model can be loaded."""
        return (await self._ready())[0]

    async def classify(self, photos: list[bytes | ImageError]) -> list[Prediction | ImageError]:
        """Return a prediction, or the reason why there is none, for each photo, in order.

        Raises:
            BusyError: If too many photos wait already.
            ServiceError: If there is no model.
        """
        engine, batcher = await self._ready()
        loop = asyncio.get_running_loop()
        loaded = await asyncio.gather(
            *(loop.run_in_executor(self._decoders, _load, data, engine.size) for data in photos)
        )
        good = [item for item in loaded if not isinstance(item, ImageError)]
        found = iter(await batcher.predict(good))
        classes = engine.version.classes
        return [item if isinstance(item, ImageError) else describe(next(found), classes) for item in loaded]

    async def _ready(self) -> tuple[Engine, Batcher]:
        if self._engine is None or self._batcher is None:
            async with self._loading:
                if self._engine is None and time.monotonic() - self._tried >= _RETRY_SECONDS:
                    await self._load_model()
        if self._engine is None or self._batcher is None:
            raise ServiceError(
                f"The service has no model {self._model}", received=self._failure,
                fix="train and promote one; the service will find it by itself",
            )  # fmt: skip
        return self._engine, self._batcher

    async def _load_model(self) -> None:
        def load() -> Engine:
            engine = Engine.load(self._store, self._model)
            engine.warm_up()
            return engine

        try:
            engine = await asyncio.get_running_loop().run_in_executor(None, load)
        except PawcastError as error:
            self._failure = error
        else:
            self._engine, self._batcher = engine, Batcher(engine.predict)
        finally:
            self._tried = time.monotonic()


def _load(data: bytes | ImageError, size: int) -> np.ndarray | ImageError:
    if isinstance(data, ImageError):
        return data
    try:
        return images.load(data, size)
    except ImageError as error:
        return error
