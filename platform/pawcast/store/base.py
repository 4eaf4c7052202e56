"""What a store can do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from pawcast.errors import UsageError

if TYPE_CHECKING:
    from pyarrow import fs


class Store(Protocol):
    """Keys to bytes. A key is a `/`-separated path; a value is whole or absent, never half-written.

    Stores pickle, and reconnect in the process that opens them: they travel to Ray's tasks.
    All methods raise `StoreError` when the store can't be reached or refuses, `StoreFullError` when it is full;
    `IntegrityError` when what arrives doesn't match a checksum that the store keeps.
    """

    uri: str

    def get(self, key: str) -> bytes:
        """Return the value. Raises `NotFoundError` if there is none."""
        ...

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """Return the value and a token for `put_if_match`. Raises `NotFoundError` if there is none."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write the value, replacing any other."""
        ...

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        """Write the value unless the key has one. Return whether this call wrote it.

        Args:
            key: Its key.
            data: The value.
            sha256: The value's, in hexadecimal digits, if the caller has it; a store that checks what it receives
                then need not compute it again.
        """
        ...

    def put_if_match(self, key: str, data: bytes, token: str) -> bool:
        """Write the value if nobody wrote since `token` was read. Return whether this call wrote it."""
        ...

    def exists(self, key: str) -> bool:
        """Return whether the key has a value."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        ...

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        """Return an Arrow file system and the path of `prefix` in it, for Ray Train's checkpoints."""
        ...


@lru_cache(maxsize=8)
def shared_store(uri: str) -> Store:
    """Open a store once in a process, for Ray's tasks: to connect takes longer than many of them do.

    Credentials are those that the process began with, renewed where they come from a profile or a role.
    """
    return open_store(uri)


def open_store(uri: str) -> Store:
    """Open the store at a folder path, `file:///folder`, or `s3://bucket/prefix`.

    Raises:
        UsageError: For any other scheme.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "file", uri
    if scheme == "file":
        from pawcast.store.folder import FolderStore

        return FolderStore(rest)
    if scheme == "s3":
        from pawcast.store.s3 import S3Store

        return S3Store(uri)
    raise UsageError("Unknown kind of store", received=repr(uri), expected="a folder or s3://bucket/prefix")
