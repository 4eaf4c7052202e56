"""A folder of photos, to any depth. Links are not followed; only regular files are opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pawcast.data.sources.labels import display_name, error_reason, is_hidden
from pawcast.errors import DataError, ImageError
from pawcast.vision.decode import MAX_BYTES

# A file that became a link or a FIFO after the scan must neither lead elsewhere nor wait for a
# writer.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def members(path: str) -> list[str]:
    """List the regular files below a folder, without hidden ones.

    Raises:
        DataError: If a folder can't be listed: its photos must not be missed silently.
    """
    files: list[str] = []
    folders = [""]
    while folders:
        parent = folders.pop()
        try:
            with os.scandir(Path(path) / parent) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{parent}{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        files.append(f"{parent}{entry.name}")
        except OSError as error:
            raise DataError(
                f"{display_name(str(Path(path) / parent))} can't be listed",
                received=error.strerror,
                fix="make it readable",
            ) from None
    return files


def read(path: str, members: Sequence[str]) -> Iterator[bytes | ImageError]:
    """Yield each file's bytes, or the reason why they can't be read."""
    for member in members:
        try:
            yield _read_file(Path(path) / member)
        except ImageError as error:
            yield error
        except (OSError, ValueError) as error:
            yield ImageError(f"can't be read ({error_reason(error)})")


def metadata(path: str, members: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Yield each file's size as a tuple of one; an empty tuple for a file that is gone."""
    for member in members:
        try:
            yield ((Path(path) / member).lstat().st_size,)
        except (OSError, ValueError):
            yield ()


def _read_file(path: Path) -> bytes:
    with open(os.open(path, _FLAGS), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file")
        # The second check is for a file that grows meanwhile.
        if status.st_size > MAX_BYTES or len(data := file.read(MAX_BYTES + 1)) > MAX_BYTES:
            raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
        return data
