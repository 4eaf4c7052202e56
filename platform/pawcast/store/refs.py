"""Refs: small mutable values that point at immutable ones. They move by compare-and-swap.

A ref is the only kind of key that changes. Each move names the state that it starts from, so of two
concurrent moves only one succeeds and the other one notices.
"""

from __future__ import annotations

from typing import NamedTuple

from pawcast.errors import NotFoundError
from pawcast.store.base import Store


class RefState(NamedTuple):
    """The value of a ref at one moment, and its ETag. Both are empty if the ref doesn't exist."""

    value: str
    etag: str


def read(store: Store, key: str) -> RefState:
    """Return the current state of a ref, to be given to `move` later."""
    try:
        data, etag = store.get_with_etag(key)
    except NotFoundError:
        return RefState("", "")
    return RefState(data.decode(errors="replace"), etag)


def move(store: Store, key: str, value: str, since: RefState) -> bool:
    """Move a ref to a value if nobody has moved it since `read` returned `since`.

    Return whether this call moved it.
    """
    data = value.encode()
    return store.put_if_match(key, data, since.etag) if since.etag else store.put_if_absent(key, data)


def advance(store: Store, key: str, number: int) -> None:
    """Move a ref up to a number. Leave it if it holds that number or a higher one already."""
    while True:
        state = read(store, key)
        if state.value.isdecimal() and int(state.value) >= number:
            return
        if move(store, key, str(number), state):
            return
