"""The interface of a store, and how a URI becomes one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from pawcast.errors import UsageError

if TYPE_CHECKING:
    from pyarrow import fs


class Store(Protocol):
    """Maps keys to bytes. A key is a `/`-separated path. A value is whole or absent, never partial.

    A store can be pickled and sent to Ray tasks. It connects again where it is unpickled.

    Every method raises `StoreError` if the store can't be reached or refuses the request,
    `StoreFullError` if it has no space left, and `IntegrityError` if the bytes that arrive don't
    match a checksum that the store keeps.
    """

    uri: str

    def get(self, key: str) -> bytes:
        """Return the value. Raises `NotFoundError` if there is none."""

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """Return the value and its ETag, for `put_if_match`. Raises `NotFoundError` if absent."""

    def put(self, key: str, data: bytes) -> None:
        """Write the value, replacing any other."""

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        """Write the value unless the key has one. Return whether this call wrote it.

        Args:
            key: The key.
            data: The value.
            sha256: The value's SHA-256 in hexadecimal, for callers that have computed it.
        """

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        """Write the value if its ETag is still `etag`. Return whether this call wrote it.

        Raises `NotFoundError` if the key has no value.
        """

    def exists(self, key: str) -> bool:
        """Return whether the key has a value."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        """Return an Arrow file system and the path of `prefix` in it, for Ray Train's own files."""


@lru_cache(maxsize=8)
def shared_store(uri: str) -> Store:
    """Open a store once per process, for Ray tasks: connecting takes longer than many tasks do."""
    return open_store(uri)


def open_store(uri: str) -> Store:
    """Open the store at a folder path, `file:///folder`, or `s3://bucket/prefix`.

    Raises:
        UsageError: For any other scheme.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme == "s3":
        from pawcast.store.s3 import S3Store

        return S3Store(uri)
    if separator and scheme != "file":
        raise UsageError("Unknown kind of store", received=repr(uri), expected="a folder or s3://bucket/prefix")
    from pawcast.store.folder import FolderStore

    return FolderStore(rest if separator else uri)
