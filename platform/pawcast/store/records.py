"""Records and contents: every object of a store is proven by itself or by a record that names it.

A record is JSON that people can read. Its last field, `sha256`, is the SHA-256 of its key, a line
break, and all bytes before that field. So a changed byte, a missing end, and a record that was
copied from another key are noticed:

    {
     "target": "3",
     "sha256": "6d0c…"
    }

A content is any other bytes (weights, a shard, a plot). Its name or a record tells its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from pawcast.core.records import Record
from pawcast.errors import IntegrityError, NotFoundError
from pawcast.store.base import Store

_R = TypeVar("_R", bound=Record)
_READERS = 8
_SEALED = re.compile(rb'(\{.+),\n "sha256": "([0-9a-f]{64})"\n\}\n', re.DOTALL)


def seal(key: str, record: Record | Mapping[str, Any]) -> bytes:
    """Return the bytes of a record for a key. NaN and infinity become null."""
    body = to_json(record, indent=1, inf_nan_mode="null").removesuffix(b"\n}")
    return body + f',\n "sha256": "{_proof(key, body)}"\n}}\n'.encode()


def unseal(store: Store, key: str, data: bytes, fix: str) -> bytes:
    """Return the JSON of a record without `sha256`. Raises `IntegrityError` if it was changed."""
    sealed = _SEALED.fullmatch(data)
    if sealed and _proof(key, sealed[1]) == sealed[2].decode():
        return sealed[1] + b"\n}"
    cause = "copied from another key" if sealed else "written by an earlier version of Pawcast"
    received = f"{len(data):,} bytes without a valid sha256"
    raise IntegrityError(f"{key} in {store.uri} was changed, or {cause}", received=received, fix=fix)


def parse(store: Store, key: str, data: bytes, kind: type[_R], fix: str) -> _R:
    """Return the record in a key's value. Raises `IntegrityError` as `read` does."""
    return validate(store, key, unseal(store, key, data, fix), kind, fix)


def validate(store: Store, key: str, text: bytes, kind: type[_R], fix: str) -> _R:
    """Return the record in proven JSON. Raises `IntegrityError` if it has other fields."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field, received, expected = ".".join(map(str, first["loc"])), first["msg"], None
        if field == "schema_version":
            received, expected = first["input"], kind.model_fields[field].default
        raise IntegrityError(
            f"{key} in {store.uri} can't be read by this version of Pawcast",
            received=f"{field} {received}",
            expected=expected,
            fix=fix,
        ) from None


def read(store: Store, key: str, kind: type[_R], fix: str) -> _R:
    """Read a record that must exist; `fix` tells what to do otherwise.

    Raises:
        IntegrityError: If it is missing or was changed, or another version of Pawcast wrote it.
    """
    return parse(store, key, _get(store, key, fix), kind, fix)


def write(store: Store, key: str, record: Record | Mapping[str, Any]) -> None:
    """Write a record, replacing any other."""
    store.put(key, seal(key, record))


def create(store: Store, key: str, record: Record) -> bool:
    """Write a record unless the key has a value. Return whether this call wrote it."""
    return store.put_if_absent(key, seal(key, record))


def read_content(store: Store, key: str, sha256: str, fix: str) -> bytes:
    """Read a content that must exist. Raises `IntegrityError` if it is missing or was changed."""
    data = _get(store, key, fix)
    if hashlib.sha256(data).hexdigest() != sha256:
        received = f"{len(data):,} bytes with another sha256"
        raise IntegrityError(f"{key} in {store.uri} was changed", received=received, fix=fix)
    return data


def write_content(store: Store, key: str, data: bytes, sha256: str) -> None:
    """Write a content to a key that is named by it. Replace what is there if that was changed."""
    if not store.put_if_absent(key, data, sha256) and store.get(key) != data:
        store.put(key, data)


Read = tuple[str, Callable[[], object]]
"""A key, and a function that reads its value and raises `IntegrityError` if that was changed."""


class Checked(NamedTuple):
    """A key whose value was read, and what is wrong with it; empty if it is whole."""

    key: str
    damage: str


def check(reads: Iterable[Read]) -> Iterator[Checked]:
    """Read values, several at a time, and yield what was found."""

    def checked(read: Read) -> Checked:
        try:
            read[1]()
        except IntegrityError as error:
            return Checked(read[0], error.what)
        return Checked(read[0], "")

    with ThreadPoolExecutor(_READERS, thread_name_prefix="check") as pool:
        yield from pool.map(checked, reads)


def _proof(key: str, body: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest()


def _get(store: Store, key: str, fix: str) -> bytes:
    try:
        return store.get(key)
    except NotFoundError:
        raise IntegrityError(f"{key} is missing in {store.uri}", fix=fix) from None
