"""A folder as the store: the embedded default, no server needed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pawcast.errors import NotFoundError, StoreError, StoreFullError

if TYPE_CHECKING:
    from pyarrow import fs

_TEMPORARY = ".writing-"


class FolderStore:
    """Files below one folder. Writes go to a temporary name first and appear whole.

    `put_if_absent` is a hard link, which POSIX makes atomic; `put_if_match` holds an exclusive lock beside the value.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().resolve()
        self.uri = str(self.root)

    def get(self, key: str) -> bytes:
        with self._translated(key):
            return self._path(key).read_bytes()

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        data = self.get(key)
        return data, _token(data)

    def put(self, key: str, data: bytes) -> None:
        with self._translated(key), self._written(key, data) as temporary:
            os.replace(temporary, self._path(key))

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        with self._translated(key):
            if self._path(key).exists():
                return False
            with self._written(key, data) as temporary:
                try:
                    os.link(temporary, self._path(key))
                except FileExistsError:
                    return False
                return True

    def put_if_match(self, key: str, data: bytes, token: str) -> bool:
        path = self._path(key)
        with self._translated(key), open(path.with_name(f".{path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _token(path.read_bytes()) != token:
                return False
            self.put(key, data)
            return True

    def exists(self, key: str) -> bool:
        with self._translated(key):
            return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        keys = (path.relative_to(self.root).as_posix() for path in start.rglob("*") if path.is_file())
        hidden = (_TEMPORARY, ".")
        return iter(sorted(k for k in keys if k.startswith(prefix) and not Path(k).name.startswith(hidden)))

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._path(key).unlink(missing_ok=True)

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        from pyarrow import fs

        path = self._path(prefix)
        with self._translated(prefix):
            path.mkdir(parents=True, exist_ok=True)
        return fs.LocalFileSystem(), str(path)

    def _path(self, key: str) -> Path:
        path = (self.root / key.replace("\0", "")).resolve()
        if "\0" in key or path == self.root or not path.is_relative_to(self.root):
            raise StoreError("Not a key of the store", received=repr(key), expected="a path below its root")
        return path

    @contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[str]:
        """Yield a temporary file beside the key's place that holds the data, on the disk; remove it after."""
        folder = self._path(key).parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            Path(temporary).unlink(missing_ok=True)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError):
            raise NotFoundError(f"The store {self.uri} has no {key}") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFullError(
                    f"The disk under the store {self.uri} is full, so {key} was not written",
                    fix="free some space or choose another --store, then run the command again",
                ) from None
            raise StoreError(
                f"The store {self.uri} refused {key}", received=error.strerror, fix="check its permissions"
            ) from None


def _token(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
