"""A folder of photos, to any depth. Links are not followed; only regular files are opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pawcast.data.sources.labels import error_reason, is_hidden, refusal
from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

# A file that became a link or a FIFO after the scan must neither lead elsewhere nor wait for a
# writer.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class Folder:
    """A folder as a source of photos."""

    def __init__(self, path: str | Path) -> None:
        self._root = Path(path)

    def members(self) -> list[str]:
        """List the regular files, without hidden ones.

        Raises:
            DataError: If a folder can't be listed: its photos must not be missed silently.
        """
        files: list[str] = []
        folders = [""]
        while folders:
            parent = folders.pop()
            try:
                with os.scandir(self._root / parent) as entries:
                    for entry in entries:
                        if is_hidden(entry.name):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(f"{parent}{entry.name}/")
                        elif entry.is_file(follow_symlinks=False):
                            files.append(f"{parent}{entry.name}")
            except OSError as error:
                path = str(self._root / parent)
                raise refusal(path, "can't be listed", error.strerror, fix="make it readable") from None
        return files

    def read(self, member: str) -> bytes:
        """Return a file's bytes. Raises `ImageError` with the reason if they can't be read."""
        try:
            with open(os.open(self._root / member, _FLAGS), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ImageError("is not a regular file")
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise ImageError(f"can't be read ({error_reason(error)})") from None
        if len(data) > MAX_BYTES:
            raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
        return data

    def metadata(self, member: str) -> tuple[int, ...]:
        """Return a file's size; an empty tuple for a file that is gone."""
        try:
            return ((self._root / member).lstat().st_size,)
        except (OSError, ValueError):
            return ()
