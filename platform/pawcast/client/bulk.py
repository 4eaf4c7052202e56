"""Bulk prediction over HTTP: exactly one row for each photo, in the photos' order.

A batch is sent again until the server answers it, and it counts as done once its predictions are in
the journal. Which photos a batch holds depends on the photos, never on timing or connections, so a
run that was killed and goes on sends the same batches as a run that nothing disturbed. All
predictions come from one model version: when another one answers, the run stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pawcast.client import journal as journals
from pawcast.client.journal import Journal, JournalHeader, PredictionRow
from pawcast.client.photos import PhotoSequence
from pawcast.client.retry import Retrier, TransientError, retrying
from pawcast.client.service_client import START_SECONDS, ServedModel, ServiceClient
from pawcast.core.progress import Progress, silent
from pawcast.data.sources import Photo
from pawcast.errors import ImageError, PawcastError, ServiceError

# The service takes 64 MiB. A photo has at most 32 MiB, and the form around it a few bytes.
MAX_REQUEST_BYTES = 60 * 2**20


class BulkOptions(NamedTuple):
    """How a run sends its photos.

    Attributes:
        batch: Photos in a request, at most; fewer if they are large.
        connections: Requests at once. Three keep a replica busy and leave room in its queue for
            other clients. Up to `batch` x `connections` photos are in memory, and at most 60 MiB
            for each connection.
        timeout: Seconds without a byte after which a request counts as lost.
        patience: Seconds without any answer after which the run gives up.
    """

    batch: int = 256
    connections: int = 3
    timeout: float = 60
    patience: float = 600


class BulkResult(NamedTuple):
    """The predictions of all photos.

    Attributes:
        model: The model version that made them, as `name@version`.
        classes: Its two classes.
        rows: One row for each photo, in the photos' order.
        earlier: How many of the rows an earlier run had left in the journal.
    """

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
    options: BulkOptions = BulkOptions(),  # noqa: B008
    fresh: bool = False,
    progress: Progress = silent,
) -> Iterator[BulkResult]:
    """Have a Pawcast service predict all photos; yield the predictions, to be written to `folder`.

    The journal in the folder is locked during the block. It is removed when the block ends without
    an exception.

    Args:
        photos: What to predict.
        url: The service, such as `http://127.0.0.1:8000`.
        folder: Holds the journal, and that of a killed run if there is one.
        key: The service's API key.
        options: How to send the photos.
        fresh: Start again instead of continuing a killed run.
        progress: Told how many photos are done, and what the run waits for.

    Yields:
        One row for each photo. A photo that can't be read, or that the service refuses, has an
        error instead of a score.

    Raises:
        ServiceError: If nothing answers at the address, if the service has no model, if an answer
            makes no sense, or if the server doesn't answer for `options.patience` seconds.
        ConflictError: If the journal belongs to other photos or another model, if another run is
            using the folder, or if the model changes during the run.
        DataError: If the photos change during the run.
        StoreError: If the journal can't be written.
    """
    # A run that continues had a right address.
    is_continued = journals.exists(folder) and not fresh
    server = asyncio.run(_identify(url, key, options, is_continued, progress))
    header = JournalHeader(photos.name, len(photos), photos.source_digest, server.model, server.weights)
    with Journal(folder, header, fresh) as journal:
        run = _Run(photos, server, journal, options, progress)
        earlier = run.done
        asyncio.run(run.finish(url, key))
        photos.check()
        rows = [row for _, batch in sorted(journal.batches.items()) for row in batch]
        yield BulkResult(server.model, server.classes, rows, earlier)
        journal.remove()


async def _identify(
    url: str, key: str | None, options: BulkOptions, is_continued: bool, progress: Progress
) -> ServedModel:
    def report(failure: TransientError) -> None:
        progress("connecting", 0, 1, _waiting(failure), unit="")

    patience = options.patience if is_continued else min(options.patience, START_SECONDS)
    async with ServiceClient(url, key, options.timeout) as service:
        server = await service.wait_until_ready(patience, report, may_be_down=is_continued)
    progress("connecting", 1, 1, server.model, unit="")
    return server


class _Run:
    """Sends all photos that the journal has no answer for, over several connections at once."""

    def __init__(
        self, photos: PhotoSequence, server: ServedModel, journal: Journal, options: BulkOptions, progress: Progress
    ) -> None:
        self._photos, self._server, self._journal, self._options = photos, server, journal, options
        self._progress = progress
        self.done = sum(map(len, journal.batches.values()))
        self._next = 0
        # Photos are read in order and one batch at a time, by whichever connection is free.
        self._reading = asyncio.Lock()

    async def finish(self, url: str, key: str | None) -> None:
        """Have all photos predicted that the journal has no answer for."""
        options = self._options
        self._report()
        try:
            async with (
                ServiceClient(url, key, options.timeout, options.connections) as service,
                retrying(options.patience, self._report) as retrier,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(options.connections):
                    group.create_task(self._work(service, retrier))
        except* TransientError as failures:
            raise ServiceError(
                f"The server at {url} stopped answering, with {self.done:,} of {len(self._photos):,} photos done",
                received=failures.exceptions[0],
                expected=f"an answer within {options.patience:g} s",
                fix="start the server, then run the same command again: it goes on from here",
            ) from None
        except* PawcastError as failures:
            raise failures.exceptions[0] from None

    async def _work(self, service: ServiceClient, retrier: Retrier) -> None:
        while True:
            async with self._reading:
                start, photos = await asyncio.to_thread(self._read_batch)
            if not photos:
                return
            readable = [data for _, data in photos if not isinstance(data, ImageError)]
            answers = iter(await retrier.call(service.classify, self._server, readable) if readable else ())
            rows = [_row(photo, data if isinstance(data, ImageError) else next(answers)) for photo, data in photos]
            self._journal.append(start, rows)
            self.done += len(rows)
            self._report()

    def _read_batch(self) -> tuple[int, list[tuple[Photo, bytes | ImageError]]]:
        """Read the next batch without predictions, whatever timing and connections are."""
        while self._next in self._journal.batches:
            self._next += len(self._journal.batches[self._next])
        start = stop = self._next
        limit = min(start + self._options.batch, len(self._photos))
        while stop < limit and stop not in self._journal.batches:
            stop += 1
        photos: list[tuple[Photo, bytes | ImageError]] = []
        size = 0
        for photo, data in self._photos.read(start, stop):
            size += 0 if isinstance(data, ImageError) else len(data)
            if photos and size > MAX_REQUEST_BYTES:
                break
            photos.append((photo, data))
        self._next += len(photos)
        return start, photos

    def _report(self, failure: TransientError | None = None) -> None:
        self._progress("predicting", self.done, len(self._photos), _waiting(failure) if failure else "")


def _row(photo: Photo, result: float | ImageError) -> PredictionRow:
    if isinstance(result, ImageError):
        return PredictionRow(photo.id, photo.member, None, result.what)
    return PredictionRow(photo.id, photo.member, result, None)


def _waiting(failure: TransientError) -> str:
    return f"waiting for the server: {failure.what}"
