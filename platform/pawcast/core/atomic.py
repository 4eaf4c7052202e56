"""Atomic writes to local files: a file appears whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pawcast.errors import StoreError, StoreFullError

PREFIX = ".writing-"
"""How the names of temporary files begin. A listing of a folder must skip them."""


@contextlib.contextmanager
def temporary_file(target: Path, data: bytes, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside the target that holds the data; remove it after the block.

    The block renames the file or links to it. Both are atomic: target and file share a folder,
    which is made if it doesn't exist. A durable file is flushed to the disk (fsync), so that it
    survives a power failure. Temporary files that killed writers left in the folder are removed.

    Raises:
        OSError: If the file can't be written; `store_error` makes a `StoreError` of it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    file = _create_locked(target.parent)
    path = Path(file.name)
    try:
        with file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            yield path
    finally:
        path.unlink(missing_ok=True)


def write(target: Path, data: bytes) -> None:
    """Write a file; make its folder. An older file is replaced at the end.

    Raises `StoreError` if it can't be written. An older file then stays as it was.
    """
    try:
        with temporary_file(target, data) as temporary:
            temporary.replace(target)
    except OSError as error:
        raise store_error(error, f"{target} can't be written", "choose another --out") from None


def store_error(error: OSError, what: str, fix: str) -> StoreError:
    """Return the error to raise instead: a `StoreFullError` if disk or quota is full."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = f"{what}: the disk is full"
        return StoreFullError(full, received=error.strerror, fix="free some space, then run the command again")
    return StoreError(what, received=error.strerror, fix=fix)


def sweep(folder: Path) -> None:
    """Remove temporary files that killed writers left in a folder, but not in its subfolders.

    A living writer holds a lock on its file. Files that can't be locked or removed stay.
    """
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _create_locked(folder: Path) -> BinaryIO:
    """Create a temporary file that `sweep` leaves alone until it is closed."""
    while True:
        # Not by `tempfile`: its files are readable by their owner only, whatever the umask says.
        file = (folder / f"{PREFIX}{uuid.uuid4().hex}").open("xb")
        # Some network file systems have no locks. There nothing is swept.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        # Another process swept the file before it was locked.
        file.close()
