"""Writing results to local files: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from pawcast.errors import StoreError, StoreFullError

_PREFIX = ".writing-"


def write(path: Path, data: bytes) -> None:
    """Write a file, making its folder; replace an older one only once the new one is whole.

    Raises:
        StoreFullError: If the disk is full. An older file stays as it was.
        StoreError: If the place can't be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_PREFIX, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(
                "The disk is full", received=f"{len(data):,} bytes for {path}", fix="free some space"
            ) from None
        raise StoreError(f"{path} can't be written", received=error.strerror, fix="choose another --out") from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def sweep(folder: Path, before: float) -> None:
    """Remove what a killed `write` left in a folder before a time, in seconds since 1970."""
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()
