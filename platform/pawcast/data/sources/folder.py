"""A folder of photos, to any depth. Links are not followed; what isn't a plain file is never opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pawcast.data.sources.labels import display_name, is_hidden
from pawcast.errors import DataError, ImageError
from pawcast.vision.decode import MAX_BYTES

# A file that became a link or a FIFO after the scan must neither lead elsewhere nor wait for a writer.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def members(path: str) -> list[str]:
    """List the plain files below a folder, the hidden ones left out. Raises `DataError` if one can't be listed."""
    found: list[str] = []
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            with os.scandir(Path(path) / below) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{below}{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        found.append(f"{below}{entry.name}")
        except OSError as error:
            raise DataError(
                f"{display_name(str(Path(path) / below))} can't be listed",
                received=error.strerror,
                fix="make it readable",
            ) from None
    return found


def read(path: str, members: Sequence[str]) -> Iterator[bytes | ImageError]:
    """Yield each file's bytes, or the reason why they can't be had."""
    for member in members:
        try:
            yield _bytes(Path(path) / member)
        except ImageError as error:
            yield error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            yield ImageError(f"can't be read ({reason})")


def facts(path: str, members: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Yield each file's size; nothing for one that can't be had."""
    for member in members:
        try:
            yield ((Path(path) / member).lstat().st_size,)
        except (OSError, ValueError):
            yield ()


def _bytes(place: Path) -> bytes:
    with open(os.open(place, _FLAGS), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ImageError("is no plain file")
        # The second check is for a file that grows meanwhile.
        if about.st_size > MAX_BYTES or len(data := file.read(MAX_BYTES + 1)) > MAX_BYTES:
            raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
        return data
