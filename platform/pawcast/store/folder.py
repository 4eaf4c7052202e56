"""A folder as the store: the default, which needs no server."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pawcast.core import atomic
from pawcast.errors import NotFoundError, StoreError

if TYPE_CHECKING:
    from pyarrow import fs


class FolderStore:
    """Files below one folder. A value is written to a temporary file first, so it appears whole.

    `put_if_absent` makes a hard link, which POSIX defines as atomic. `put_if_match` compares and
    replaces while it holds an exclusive lock on a file beside the value. The ETag is the SHA-256.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().resolve()
        self.uri = str(self.root)

    def get(self, key: str) -> bytes:
        with self._translate_errors(key):
            return self._path(key).read_bytes()

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        data = self.get(key)
        return data, _etag(data)

    def put(self, key: str, data: bytes) -> None:
        with self._translate_errors(key):
            path = self._path(key)
            with atomic.temporary_file(path, data, durable=True) as temporary:
                temporary.replace(path)

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        with self._translate_errors(key):
            path = self._path(key)
            if path.exists():
                return False
            with atomic.temporary_file(path, data, durable=True) as temporary:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
                return True

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        path = self._path(key)
        with self._translate_errors(key), open(path.with_name(f".{path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _etag(path.read_bytes()) != etag:
                return False
            self.put(key, data)
            return True

    def exists(self, key: str) -> bool:
        with self._translate_errors(key):
            return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        # Locks and temporary files begin with a dot; no key does.
        files = (path for path in start.rglob("*") if path.is_file() and not path.name.startswith("."))
        keys = (path.relative_to(self.root).as_posix() for path in files)
        return iter(sorted(key for key in keys if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        with self._translate_errors(key):
            self._path(key).unlink(missing_ok=True)

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        from pyarrow import fs

        path = self._path(prefix)
        with self._translate_errors(prefix):
            path.mkdir(parents=True, exist_ok=True)
        return fs.LocalFileSystem(), str(path)

    def _path(self, key: str) -> Path:
        path = (self.root / key.replace("\0", "")).resolve()
        if "\0" in key or path == self.root or not path.is_relative_to(self.root):
            raise StoreError("Not a key of the store", received=repr(key), expected="a path below its root")
        return path

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        """Raise the operating system's errors as Pawcast's."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError):
            raise NotFoundError(f"The store {self.uri} has no {key}") from None
        except OSError as error:
            raise atomic.store_error(error, f"The store {self.uri} refused {key}", "check its permissions") from None


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
