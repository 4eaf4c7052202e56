"""What a bulk run has done so far, in a file beside its results: a run that was killed goes on from there.

The first line says what the journal belongs to, each other one holds the answers for a batch. A line is its
checksum and JSON, and only ever appended. One that was torn by a kill or a power cut doesn't match and counts
for nothing, so the worst that is lost is the batches that it stood for. Whoever writes holds a lock on the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pawcast.errors import ConflictError, StoreError, StoreFullError

NAME = "bulk.journal"
_FORMAT = 1


class PredictionRow(NamedTuple):
    """One photo's answer: `score`, the probability of class 1, or the reason why there is none."""

    id: str
    member: str
    score: float | None
    error: str | None


class JournalHeader(NamedTuple):
    """What a journal belongs to: these photos, answered by this model.

    Attributes:
        photos: What people call the photos; says nothing about their identity.
        total: How many there are.
        source_digest: Their identity.
        model: `name@version`.
        weights: The identity of the model's files, empty if the server doesn't tell.
    """

    photos: str
    total: int
    source_digest: str
    model: str
    weights: str


class Journal:
    """The journal of a run; use as a context manager, which holds its lock.

    Args:
        folder: Where it is; made if it isn't there.
        subject: What it belongs to.
        fresh: Begin a new one, whatever there is.

    Raises:
        ConflictError: If there is one of other photos or another model, or another run is writing it.
        StoreError: If it can't be written.

    Attributes:
        batches: Rows by the index of their first photo, as they were when the journal was opened and as
            they were appended since.
    """

    def __init__(self, folder: Path, subject: JournalHeader, fresh: bool = False) -> None:
        self._path = folder / NAME
        self.batches: dict[int, list[PredictionRow]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _locked(self._path)
        except OSError as error:
            raise _failure(self._path, error) from None
        try:
            self._begin(subject, fresh)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def append(self, start: int, rows: Sequence[PredictionRow]) -> None:
        """Note a batch, whose first photo has this index. Raises `StoreError` if that can't be written."""
        self._write([start, rows])
        self.batches[start] = list(rows)

    def remove(self) -> None:
        """Remove the journal, its results being elsewhere by now."""
        self._path.unlink(missing_ok=True)

    def _begin(self, subject: JournalHeader, fresh: bool) -> None:
        # What follows the last line break is torn, and must not become a part of the next line.
        whole, _, _ = b"".join(iter(lambda: os.read(self._file, 2**20), b"")).rpartition(b"\n")
        lines = whole.split(b"\n") if whole and not fresh else []
        os.ftruncate(self._file, len(whole) + 1 if lines else 0)
        if not lines:
            self._write([_FORMAT, subject])
            return
        self._compare(_value(lines[0]), subject)
        for value in map(_value, lines[1:]):
            if value:
                self.batches[value[0]] = [PredictionRow(*row) for row in value[1]]

    def _compare(self, header: list | None, subject: JournalHeader) -> None:  # type: ignore[type-arg]
        fix = "add --fresh to begin anew, or choose another --out"
        if not header or header[0] != _FORMAT:
            raise ConflictError(f"{self._path} can't be read as a journal", fix=fix)
        found = JournalHeader(*header[1])
        if (found.total, found.source_digest) != (subject.total, subject.source_digest):
            raise ConflictError(
                f"{self._path} belongs to other photos",
                received=f"{subject.total:,} photos of {subject.photos}",
                expected=f"the {found.total:,} photos of {found.photos} that an unfinished run is about",
                fix=fix,
            )
        if (found.model, found.weights) != (subject.model, subject.weights):
            raise ConflictError(
                f"{self._path} belongs to another model",
                received=_described(subject, found),
                expected=f"{_described(found, subject)}, which has answered for some photos already",
                fix=fix,
            )

    def _write(self, value: object) -> None:
        text = json.dumps(value, separators=(",", ":")).encode()
        line = b"%s %s\n" % (_checksum(text), text)
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise _failure(self._path, error) from None


def exists(folder: Path) -> bool:
    """Whether a run has left a journal here."""
    return (folder / NAME).is_file()


def _locked(path: Path) -> int:
    """Open a journal for this process alone."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            # A few network file systems know no locks; they do without.
            with contextlib.suppress(OSError):
                _lock(path, file)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        # The run that held the lock has ended well and removed the file meanwhile.
        os.close(file)


def _lock(path: Path, file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            f"Another run is writing to {path.parent}", fix="wait for its end, or choose another --out"
        ) from None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()


def _value(line: bytes) -> list | None:  # type: ignore[type-arg]
    """What a line holds; None if it isn't whole."""
    checksum, _, text = line.partition(b" ")
    return json.loads(text) if checksum == _checksum(text) else None


def _described(one: JournalHeader, other: JournalHeader) -> str:
    return one.model if one.model != other.model else f"{one.model} with the weights {one.weights[:12] or 'unknown'}"


def _failure(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError("The disk is full", received=f"a line of {path}", fix="free some space, and run it again")
    return StoreError(f"{path} can't be written", received=error.strerror, fix="choose another --out")
