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

    The block renames the file or links to it. Both are atomic: target and file share a folder.

    Args:
        target: Where the data belongs. Its folder is made if it doesn't exist.
        data: The content of the file.
        durable: Whether to flush the file to the disk (fsync), so that it survives a power failure.

    Raises:
        OSError: If the file can't be written; `is_full` tells whether the disk is full.
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

    Raises:
        StoreFullError: If the disk is full. An older file stays as it was.
        StoreError: If the file can't be written for another reason.
    """
    try:
        with temporary_file(target, data) as temporary:
            temporary.chmod(_READABLE)
            temporary.replace(target)
    except OSError as error:
        if is_full(error):
            raise StoreFullError(
                "The disk is full", received=f"{len(data):,} bytes for {target}", fix="free some space"
            ) from None
        raise StoreError(f"{target} can't be written", received=error.strerror, fix="choose another --out") from None


def is_full(error: OSError) -> bool:
    """Return whether an error means that the disk, or the user's quota of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sweep(folder: Path, before: float) -> None:
    """Remove temporary files that killed writers left in a folder.

    Args:
        folder: The folder; its subfolders are not searched.
        before: Only files last modified before this time are removed, in seconds since 1970.
    """
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()
