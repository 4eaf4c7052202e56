"""Refs: small mutable records that point at immutable ones. They move by compare-and-swap.

A ref is the only kind of key that changes. Each move names the state that it starts from, so of two
concurrent moves only one succeeds and the other one notices.
"""

from __future__ import annotations

from typing import NamedTuple

from pawcast.core.records import Record
from pawcast.errors import IntegrityError, NotFoundError
from pawcast.store import records
from pawcast.store.base import Store


class Ref(Record):
    """What a ref holds: the digest of a manifest, or the number of a version."""

    target: str


class RefState(NamedTuple):
    """The target of a ref at one moment, and its ETag.

    Both are empty if the ref doesn't exist. The target alone is empty if the ref was changed by
    something else than Pawcast; a move then repairs it.
    """

    target: str
    etag: str


def read(store: Store, key: str) -> RefState:
    """Return the current state of a ref, to be given to `move` later."""
    try:
        data, etag = store.get_with_etag(key)
    except NotFoundError:
        return RefState("", "")
    try:
        return RefState(records.parse(store, key, data, Ref, "").target, etag)
    except IntegrityError:
        return RefState("", etag)


def damage(store: Store, key: str, state: RefState, fix: str) -> IntegrityError:
    """Return the error for a ref without a target that should have one."""
    cause = "was changed, or written by an earlier version of Pawcast" if state.etag else "is missing"
    return IntegrityError(f"{key} in {store.uri} {cause}", fix=fix)


def move(store: Store, key: str, target: str, since: RefState) -> bool:
    """Point a ref at a target if nobody has moved it since `read` returned `since`.

    Return whether this call moved it.
    """
    data = records.seal(key, Ref(target=target))
    return store.put_if_match(key, data, since.etag) if since.etag else store.put_if_absent(key, data)


def advance(store: Store, key: str, number: int) -> None:
    """Move a ref up to a number. Leave it if it holds that number or a higher one already."""
    while True:
        state = read(store, key)
        if state.target and int(state.target) >= number:
            return
        if move(store, key, str(number), state):
            return
