"""A folder of photos, to any depth. Links are followed within the folder, but not out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pawcast.data.sources.container import Container, Entry, too_large
from pawcast.data.sources.labels import error_reason, is_hidden, refusal
from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

# A file that became a link or a FIFO after the scan must neither lead elsewhere nor wait for a
# writer.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class Folder(Container):
    """A folder as a source of photos."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> Iterator[Entry]:
        """List the files. Hidden folders are listed as one file each, and not entered.

        Raises:
            DataError: If a folder can't be listed: its photos must not be missed silently.
        """
        folders = [""]
        while folders:
            parent = folders.pop()
            try:
                with os.scandir(self.path / parent) as listed:
                    for item in listed:
                        member = f"{parent}{item.name}"
                        if item.is_dir(follow_symlinks=False) and not is_hidden(item.name):
                            folders.append(f"{member}/")
                        elif item.is_symlink():
                            yield from self._link(member)
                        else:
                            is_file = item.is_file(follow_symlinks=False)
                            yield Entry(member, member, "" if is_file or is_hidden(item.name) else "special")
            except OSError as error:
                path = str(self.path / parent)
                raise refusal(path, "can't be listed", error.strerror, fix="make it readable") from None

    def read(self, member: str, limit: int = MAX_BYTES) -> bytes:
        try:
            with open(os.open(self._file(member), _FLAGS), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ImageError("is not a regular file")
                data = file.read(limit + 1)
        except (OSError, ValueError) as error:
            raise ImageError(f"can't be read ({error_reason(error)})") from None
        if len(data) > limit:
            raise too_large(limit)
        return data

    def head(self, member: str, size: int) -> bytes:
        try:
            with open(os.open(self._file(member), _FLAGS), "rb") as file:
                return file.read(size)
        except (OSError, ValueError) as error:
            raise ImageError(f"can't be read ({error_reason(error)})") from None

    def metadata(self, member: str) -> tuple[object, ...]:
        """Return a file's size; an empty tuple for a file that is gone."""
        try:
            return ((self.path / member).stat().st_size,)
        except (OSError, ValueError):
            return ()

    def holds(self, member: str) -> bool:
        """Return whether a file is within this folder, whatever links its path goes through."""
        return self._target(member) is not None

    def _link(self, member: str) -> Iterator[Entry]:
        """Yield a link, unless it leads to a folder, whose files are listed by their own names."""
        target = self._target(member)
        if target is None:
            yield Entry(member, member, "link")
        elif (self.path / target).is_file():
            yield Entry(member, member, target=target)
        elif is_hidden(target) or not (self.path / target).is_dir():
            yield Entry(member, member, "link")

    def _target(self, member: str) -> str | None:
        """Return where a link leads to below this folder, or None if it leads out or nowhere."""
        try:
            real = (self.path / member).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: links that lead to each other.
            return None
        root = self.path.resolve()
        return real.relative_to(root).as_posix() if real.is_relative_to(root) else None

    def _file(self, member: str) -> Path:
        """Return the path to open: for a link within this folder, that of the file."""
        path = self.path / member
        target = self._target(member) if path.is_symlink() else None
        return self.path / target if target else path
