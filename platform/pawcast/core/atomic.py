"""Atomic writes to local files: a file appears whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pawcast.errors import StoreError, StoreFullError

PREFIX = ".writing-"
"""How the names of temporary files begin. A listing of a folder must skip them."""
_READABLE = 0o644


@contextlib.contextmanager
def temporary_file(target: Path, data: bytes, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside the target that holds the data; remove it after the block.

    The block renames the file or links to it. Both are atomic: target and file share a folder,
    which is made if it doesn't exist. A durable file is flushed to the disk (fsync), so that it
    survives a power failure.

    Raises:
        OSError: If the file can't be written; `store_error` makes a `StoreError` of it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=target.parent)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def write(target: Path, data: bytes) -> None:
    """Write a file that everyone may read; make its folder. An older file is replaced at the end.

    Raises `StoreError` if it can't be written. An older file then stays as it was.
    """
    try:
        with temporary_file(target, data) as temporary:
            temporary.chmod(_READABLE)
            temporary.replace(target)
    except OSError as error:
        raise store_error(error, f"{target} can't be written", "choose another --out") from None


def store_error(error: OSError, what: str, fix: str) -> StoreError:
    """Return the error to raise instead: a `StoreFullError` if disk or quota is full."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(what, received=error.strerror, fix="free some space, then run the command again")
    return StoreError(what, received=error.strerror, fix=fix)


def sweep(folder: Path, before: float) -> None:
    """Remove temporary files that killed writers left in a folder, but not in its subfolders.

    Only files last modified `before` this time, in seconds since 1970, are removed.
    """
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()
