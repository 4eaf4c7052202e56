"""Bulk prediction over HTTP: every photo once, one row for each, in the photos' order, whatever happens meanwhile.

A batch is asked for again until it is answered, and its answers are in the journal before it counts as done. Batches
begin and end where the photos say, not the network: a run that was killed and goes on sends what an undisturbed one
would have sent. All rows are one model's: when another one answers the run stops, and its journal waits for the old
one to come back or for `--fresh`.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pawcast.client import journal as journals
from pawcast.client.journal import Journal, JournalHeader, PredictionRow
from pawcast.client.photos import PhotoSequence
from pawcast.client.service import ModelChangedError, PhotoResult, ServedModel, ServiceClient, TransientError, patiently
from pawcast.client.throttle import Throttle
from pawcast.data.sources import Photo
from pawcast.errors import ConflictError, ImageError, PawcastError, ServiceError

# The service takes 64 MiB; a photo has 32 at most, and the form around it some bytes.
MAX_REQUEST = 60 * 2**20

Progress = Callable[[int, int, str], None]


class BulkOptions(NamedTuple):
    """What a run may take.

    Attributes:
        batch: Most photos in a request; fewer if they are large.
        connections: Most requests at once. Two or three keep a replica at work, and leave room in its queue for others.
            Up to `batch` x `connections` photos are in memory, and no more than 60 MiB for each connection.
        timeout: Seconds without a byte after which a request counts as lost.
        patience: Seconds without an answer after which the run gives up.
    """

    batch: int = 256
    connections: int = 3
    timeout: float = 60
    patience: float = 600


class BulkResult(NamedTuple):
    """All answers, in the photos' order, the model that gave them, and how many were there before this run."""

    model: str
    classes: list[str]
    rows: list[PredictionRow]
    earlier: int


@contextmanager
def bulk_predict(
    photos: PhotoSequence,
    url: str,
    folder: Path,
    *,
    key: str | None = None,
    limits: BulkOptions = BulkOptions(),  # noqa: B008
    fresh: bool = False,
    progress: Progress = lambda done, total, note: None,
    waiting: Callable[[str], None] = lambda note: None,
) -> Iterator[BulkResult]:
    """Have a Pawcast service predict all photos; yield the answers, to be written to `folder`.

    The journal in there is removed once the block has ended without an exception, and locked until then.

    Args:
        photos: What to predict.
        url: The service, such as `http://127.0.0.1:8000`.
        folder: Where the journal of a killed run is, or will be.
        key: The service's API key.
        limits: What the run may take.
        fresh: Begin anew instead of going on where a killed run stopped.
        progress: Called with photos done and in all, and what the run waits for, if it does.
        waiting: Called with what a run that goes on waits for before it can.

    Yields:
        One row for each photo. A photo that can't be read, or that the service refuses, has an error instead
        of a score.

    Raises:
        ServiceError: If nothing answers at the address, if it has no model, if an answer makes no sense, or if
            none comes for as long as the patience lasts.
        ConflictError: If the journal there belongs to other photos or another model, if another run is writing
            it, or if the model changes on the way.
        DataError: If the photos change while they are read.
        StoreError: If the journal can't be written.
    """
    # A first run with a wrong address should say so at once; one that goes on knows that the address was right.
    patience = limits.patience if journals.exists(folder) and not fresh else 0
    server = asyncio.run(_identify(url, key, limits, patience, waiting))
    subject = JournalHeader(photos.name, len(photos), photos.source_digest, server.model, server.weights)
    with Journal(folder, subject, fresh) as journal:
        run = _Run(photos, server, journal, limits, progress)
        earlier = run.done
        asyncio.run(run.finish(url, key))
        photos.check()
        rows = [row for _, batch in sorted(journal.batches.items()) for row in batch]
        yield BulkResult(server.model, server.classes, rows, earlier)
        journal.remove()


async def _identify(
    url: str, key: str | None, limits: BulkOptions, patience: float, waiting: Callable[[str], None]
) -> ServedModel:
    async with ServiceClient(url, key, limits.timeout) as service:
        if not patience:
            return await service.identify()
        return await patiently(service.identify, patience, lambda error: waiting(_waits(error)))


def _waits(error: TransientError) -> str:
    return f"waiting for the server: {error.what}"


class _Batch(NamedTuple):
    start: int
    photos: list[tuple[Photo, bytes | ImageError]]


class _Run:
    def __init__(
        self, photos: PhotoSequence, server: ServedModel, journal: Journal, limits: BulkOptions, progress: Progress
    ) -> None:
        self._photos, self._server, self._journal, self._limits = photos, server, journal, limits
        self._progress = progress
        self.done = sum(map(len, journal.batches.values()))
        self._starts = sorted(journal.batches)
        self._next = 0
        self._failure: TransientError | None = None
        self._progressed = time.monotonic()
        self._throttle = Throttle(limits.connections)
        # Reading is in order and one batch at a time, by whichever request is next.
        self._reading = asyncio.Lock()
        self._finished = asyncio.Event()

    async def finish(self, url: str, key: str | None) -> None:
        """Have all photos answered that the journal doesn't know."""
        self._progress(self.done, len(self._photos), "")
        async with ServiceClient(url, key, self._limits.timeout, self._limits.connections) as service:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._watch(service.url))
                    workers = [group.create_task(self._work(service)) for _ in range(self._limits.connections)]
                    await asyncio.wait(workers)
                    self._finished.set()
            except* PawcastError as failures:
                raise failures.exceptions[0] from None

    async def _work(self, service: ServiceClient) -> None:
        batch: _Batch | None = None
        while True:
            async with self._throttle.turn() as began:
                if batch is None:
                    async with self._reading:
                        batch = await asyncio.to_thread(self._read)
                    if batch is None:
                        return
                    # The turn began with the request, not with the reading.
                    began = time.monotonic()
                try:
                    answers = await self._ask(service, batch)
                except TransientError as error:
                    self._failure = error
                    self._throttle.failed(began, error.retry_after)
                    self._progress(self.done, len(self._photos), _waits(error))
                    continue
                self._throttle.succeeded()
                self._note(batch, answers)
                batch = None

    def _read(self) -> _Batch | None:
        """Read the next batch that the journal doesn't have: as many photos as it may hold, the same every time."""
        while self._next in self._journal.batches:
            self._next += len(self._journal.batches[self._next])
        following = bisect_right(self._starts, self._next)
        known = self._starts[following] if following < len(self._starts) else len(self._photos)
        start, stop = self._next, min(self._next + self._limits.batch, known)
        photos: list[tuple[Photo, bytes | ImageError]] = []
        size = 0
        for photo, data in self._photos.read(start, stop):
            size += 0 if isinstance(data, ImageError) else len(data)
            if photos and size > MAX_REQUEST:
                break
            photos.append((photo, data))
        self._next += len(photos)
        return _Batch(start, photos) if photos else None

    async def _ask(self, service: ServiceClient, batch: _Batch) -> list[PhotoResult]:
        readable = [data for _, data in batch.photos if not isinstance(data, ImageError)]
        try:
            answers = iter(await service.classify(self._server, readable) if readable else ())
        except ModelChangedError as error:
            raise ConflictError(
                f"The model changed during the run, with {self.done:,} of {len(self._photos):,} photos done",
                received=error.what,
                expected=self._server.model,
                fix=f"add --fresh to have {error.what} predict all photos, or go on once {self._server.model} is back",
            ) from None
        return [
            PhotoResult(None, data.what) if isinstance(data, ImageError) else next(answers) for _, data in batch.photos
        ]

    def _note(self, batch: _Batch, answers: list[PhotoResult]) -> None:
        found = zip(batch.photos, answers, strict=True)
        self._journal.append(
            batch.start, [PredictionRow(photo.id, photo.member, *answer) for (photo, _), answer in found]
        )
        self.done += len(answers)
        self._progressed = time.monotonic()
        self._progress(self.done, len(self._photos), "")

    async def _watch(self, url: str) -> None:
        """End the run when nothing was answered for as long as the patience lasts."""
        while (left := self._progressed + self._limits.patience - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._finished.wait(), left)
                return
            except TimeoutError:
                continue
        raise ServiceError(
            f"The server at {url} stopped answering, with {self.done:,} of {len(self._photos):,} photos done",
            received=self._failure.what if self._failure else "nothing",
            expected=f"an answer within {self._limits.patience:g} s",
            fix="run it again when the server is back: it goes on from here",
        )
