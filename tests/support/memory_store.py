"""A store in memory, for tests that read and damage it thousands of times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyarrow import fs

from pawcast.errors import NotFoundError


class MemoryStore:
    """Maps keys to bytes in a dictionary. One thread may write at a time."""

    uri = "memory"

    def __init__(self, values: Mapping[str, bytes] = {}) -> None:
        self.values = dict(values)

    @classmethod
    def copy_of(cls, folder: Path) -> MemoryStore:
        """Copy a store in a folder."""
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})

    def get(self, key: str) -> bytes:
        if key not in self.values:
            raise NotFoundError(f"The store {self.uri} has no {key}")
        return self.values[key]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        return self.get(key), hashlib.sha256(self.get(key)).hexdigest()

    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        return self.values.setdefault(key, data) is data

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        if self.get_with_etag(key)[1] != etag:
            return False
        self.values[key] = data
        return True

    def exists(self, key: str) -> bool:
        return key in self.values

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.values if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        self.values.pop(key, None)

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        raise NotImplementedError
