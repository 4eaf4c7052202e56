"""What a bulk run has done so far: an SQLite database beside its results.

A run that was killed continues from it. Each batch is one transaction, so neither a kill nor a
power cut loses a recorded batch or leaves half of one. The run holds an exclusive lock on the file.

    header   one row, as JSON: the photos and the model version that the journal belongs to
    batches  the index of a batch's first photo, its rows as JSON, and a checksum of both

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
from typing import NamedTuple

from pawcast.errors import ConflictError, IntegrityError, PawcastError, StoreError, StoreFullError

NAME = "bulk.sqlite"
_log = logging.getLogger(__name__)
_TABLES = (
    "CREATE TABLE header (value TEXT NOT NULL)",
    "CREATE TABLE batches (start INTEGER PRIMARY KEY, rows TEXT NOT NULL, sha256 BLOB NOT NULL)",
)
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
        text = json.dumps(rows)
        with _errors(self._path):
            self._database.execute(
                "INSERT INTO batches VALUES (?, ?, ?)", (start, text, _checksum(start, text.encode()))
            )
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
            for statement in _TABLES:
                execute(statement)
            execute("INSERT INTO header VALUES (?)", [json.dumps(header)])
        _compare(self._path, execute("SELECT value FROM header").fetchall(), header)
        for start, text, checksum in execute("SELECT start, rows, sha256 FROM batches"):
            if checksum != _checksum(start, text):
                raise _unreadable(self._path)
            self.batches[start] = [PredictionRow(*row) for row in json.loads(text)]
        execute("COMMIT")


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


def _compare(path: Path, rows: list[tuple[bytes]], header: JournalHeader) -> None:
    """Refuse a journal that belongs to something else."""
    try:
        ((text,),) = rows
        recorded = JournalHeader(*json.loads(text))
    except (ValueError, TypeError):
        raise _unreadable(path) from None
    if (recorded.total, recorded.source_digest) != (header.total, header.source_digest):
        raise ConflictError(
            f"{path} belongs to other photos",
            received=f"{header.total:,} photos of {header.photos}",
            expected=f"the {recorded.total} photos of {recorded.photos}, which an unfinished run began to predict",
            fix=_FIX,
        )
    if (recorded.model, recorded.weights) != (header.model, header.weights):
        raise ConflictError(
            f"{path} belongs to another model",
            received=_model_name(header, recorded),
            expected=f"{_model_name(recorded, header)}, which has predicted some photos already",
            fix=_FIX,
        )


def _model_name(header: JournalHeader, other: JournalHeader) -> str:
    if header.model != other.model:
        return header.model
    return f"{header.model} with the weights {header.weights[:12] or 'unknown'}"


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the file system into ours."""
    try:
        yield
    except OSError as error:
        raise _not_writable(path, error.strerror) from None
    except sqlite3.Error as error:
        raise _failure(path, error) from None


def _failure(path: Path, error: sqlite3.Error) -> PawcastError:
    code = error.sqlite_errorcode & _PRIMARY
    if code == sqlite3.SQLITE_BUSY:
        return ConflictError(
            f"Another run is writing to {path.parent}", fix="wait for its end, or choose another --out"
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(
            "The disk is full", received=f"a batch for {path}", fix="free some space, and run it again"
        )
    return _unreadable(path) if code in _UNREADABLE else _not_writable(path, str(error))


def _not_writable(path: Path, reason: str | None) -> StoreError:
    fix = "check permissions, free space and quota there, or choose another --out"
    return StoreError(f"{path} can't be written", received=reason, fix=fix)


def _unreadable(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} is damaged, or isn't a journal of this version of Pawcast", fix=_FIX)
