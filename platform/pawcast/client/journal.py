"""What a bulk run has done so far: an SQLite database beside its results.

A run that was killed continues from it. Each batch is one transaction, so neither a kill nor a
power cut loses a recorded batch or leaves half of one. The run holds an exclusive lock on the file.

The only table holds the index of a batch's first photo, its rows as JSON, and a checksum of both.
The row of index -1 is the header: the photos and the model version that the journal belongs to.

Source: https://www.sqlite.org/atomiccommit.html, https://www.sqlite.org/pragma.html#pragma_locking_mode
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pawcast.errors import ConflictError, IntegrityError, PawcastError, StoreError, StoreFullError

NAME = "bulk.sqlite"
_log = logging.getLogger(__name__)
_TABLE = "CREATE TABLE batches (start INTEGER PRIMARY KEY, rows TEXT NOT NULL, sha256 BLOB NOT NULL)"
_HEADER = -1
# SQLite's codes for a file that is no database, for a damaged one, and for one with other tables.
_UNREADABLE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}
_PRIMARY = 0xFF  # of an extended result code, the part that names the kind of error
_FIX = "add --fresh to start again, or choose another --out"


class PredictionRow(NamedTuple):
    """The prediction for one photo.

    Attributes:
        id: The photo's id.
        member: Its path in the source.
        score: The probability of class 1, in [0, 1], or None.
        error: Why there is no score, or None.
    """

    id: str
    member: str
    score: float | None
    error: str | None


class JournalHeader(NamedTuple):
    """What a journal belongs to: these photos, predicted by this model version.

    Attributes:
        photos: The source's name, for messages; no part of the photos' identity.
        total: How many photos there are.
        source_digest: The photos' identity.
        model: `name@version`.
        weights: The identity of the model's files; empty if the server doesn't tell.
    """

    photos: str
    total: int
    source_digest: str
    model: str
    weights: str


class Journal:
    """The journal of a run. Use it as a context manager, which holds the lock.

    Args:
        folder: Where the journal is; made if it doesn't exist.
        header: What the journal belongs to.
        fresh: Replace whatever journal there is.

    Raises:
        ConflictError: If the journal there belongs to other photos or another model, or if another
            run is using it.
        IntegrityError: If it is damaged.
        StoreFullError: If the disk is full.
        StoreError: If the journal can't be written.

    Attributes:
        batches: The rows of each recorded batch, by the index of its first photo.
    """

    def __init__(self, folder: Path, header: JournalHeader, fresh: bool = False) -> None:
        self._path = folder / NAME
        self.batches: dict[int, list[PredictionRow]] = {}
        with _errors(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                _discard(self._path)
            if exists(folder) and not self._path.stat().st_size:
                _log.warning(f"{self._path} is empty: all photos are predicted again.")
            self._database = _connect(self._path)
            try:
                self._begin(header)
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def append(self, start: int, rows: Sequence[PredictionRow]) -> None:
        """Record the batch whose first photo has this index. Raises `StoreError` if that fails."""
        with _errors(self._path):
            self._insert(start, rows)
        self.batches[start] = list(rows)

    def remove(self) -> None:
        """Remove the journal, because its results have been written."""
        _remove(self._path)

    def _begin(self, header: JournalHeader) -> None:
        """Lock the journal until the connection closes, and read it; fill it if it is new."""
        execute = self._database.execute
        execute("BEGIN EXCLUSIVE")
        if execute("PRAGMA quick_check").fetchall() != [(b"ok",)]:
            raise _unreadable(self._path)
        if execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            execute(_TABLE)
            self._insert(_HEADER, header)
        recorded = {}
        for start, text, checksum in execute("SELECT start, rows, sha256 FROM batches"):
            if checksum != _checksum(start, text):
                raise _unreadable(self._path)
            recorded[start] = json.loads(text)
        if _HEADER not in recorded:
            raise _unreadable(self._path)
        _compare(self._path, JournalHeader(*recorded.pop(_HEADER)), header)
        self.batches = {start: [PredictionRow(*row) for row in rows] for start, rows in recorded.items()}
        execute("COMMIT")

    def _insert(self, start: int, value: Sequence[Any]) -> None:
        text = json.dumps(value)
        self._database.execute("INSERT INTO batches VALUES (?, ?, ?)", (start, text, _checksum(start, text.encode())))


def exists(folder: Path) -> bool:
    """Return whether a run has left a journal in a folder."""
    return (folder / NAME).is_file()


def _connect(path: Path) -> sqlite3.Connection:
    # No timeout: a lock is reported at once. No isolation level: BEGIN begins a transaction.
    database = sqlite3.connect(path, timeout=0, isolation_level=None)
    # Damaged text need not be UTF-8.
    database.text_factory = bytes
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    return database


def _discard(path: Path) -> None:
    """Remove a journal, readable or not, unless another run is using it."""
    with closing(_connect(path)) as database:
        try:
            database.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & _PRIMARY not in _UNREADABLE:
                raise
        _remove(path)


def _remove(path: Path) -> None:
    # SQLite's rollback journal first: without its database nobody would remove it.
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _checksum(start: int, text: bytes) -> bytes:
    """Return a batch's checksum. SQLite notices a broken page, but not a flipped bit in a row."""
    return hashlib.sha256(repr((start, text)).encode()).digest()


def _compare(path: Path, recorded: JournalHeader, header: JournalHeader) -> None:
    """Refuse a journal that belongs to something else."""
    same_photos = (recorded.total, recorded.source_digest) == (header.total, header.source_digest)
    if not same_photos or (recorded.model, recorded.weights) != (header.model, header.weights):
        raise ConflictError(
            f"{path}, left by an unfinished run, belongs to {'another model' if same_photos else 'other photos'}",
            received=_describe(header),
            expected=_describe(recorded),
            fix=_FIX,
        )


def _describe(header: JournalHeader) -> str:
    photos = f"{header.total:,} photos of {header.photos} (digest {header.source_digest[:12]})"
    return f"{photos} by {header.model} (weights {header.weights[:12] or 'unknown'})"


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the file system into ours."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise _failure(path, error) from None


def _failure(path: Path, error: OSError | sqlite3.Error) -> PawcastError:
    code = error.sqlite_errorcode & _PRIMARY if isinstance(error, sqlite3.Error) else None
    if code == sqlite3.SQLITE_BUSY:
        return ConflictError(f"Another run uses {path.parent}", fix="wait for its end, or choose another --out")
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(f"The disk is full, so {path} can't be written", fix="free some space, and run it again")
    if code in _UNREADABLE:
        return _unreadable(path)
    fix = "check permissions, free space and quota there, or choose another --out"
    return StoreError(f"{path} can't be written", received=getattr(error, "strerror", error), fix=fix)


def _unreadable(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} is damaged, or isn't a journal of this version of Pawcast", fix=_FIX)
