"""The API keys that requests may bring, and their changes while the service runs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path

from starlette.datastructures import Headers

from pawcast.core.settings import api_key, check_key
from pawcast.errors import NotFoundError, PawcastError, UsageError

_CHECK_SECONDS = 5.0
_log = logging.getLogger("ray.serve")


def read_api_keys(file: Path | None = None) -> list[str]:
    """Return the keys of a file, one a line; without a file, `PAWCAST_API_KEY` if it is set.

    Raises:
        NotFoundError: If the file can't be read.
        UsageError: If the file holds no key, or if a key is too short.
    """
    if file is None:
        key = api_key()
        return [key] if key else []
    try:
        keys = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise NotFoundError(f"The API keys in {file} can't be read", received=error) from None
    if not keys:
        raise UsageError(f"{file} holds no API key", expected="one key a line")
    return [check_key(key, f"A key in {file}") for key in keys]


class ApiKeys:
    """Checks the keys of requests.

    Args:
        read: Returns the keys that are accepted now; none if none is asked for.

    Raises:
        PawcastError: That of `read`.
    """

    def __init__(self, read: Callable[[], list[str]]) -> None:
        self._read = read
        self._digests = list(map(_digest, read()))

    async def follow(self) -> None:
        """Read the keys again every few seconds. If they can't be read, the last ones stay."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            try:
                self._digests = list(map(_digest, await asyncio.to_thread(self._read)))
            except PawcastError as error:
                _log.error(f"The API keys stay as they are: {error}")

    def accept(self, headers: Headers) -> bool:
        """Return whether a request brings an accepted key, or none is asked for."""
        if not self._digests:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = headers.get("x-api-key", "")
        digest = _digest(key.strip())
        # Digests have equal lengths, so a comparison takes the same time for every key.
        return any(hmac.compare_digest(digest, accepted) for accepted in self._digests)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
