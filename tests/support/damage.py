"""What can happen to a stored object: a flipped bit, a cut, an emptied file, a swap, a deletion."""

from __future__ import annotations

import random

from pawcast.store import Store


def flip(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Flip one bit."""
    data = bytearray(store.get(key))
    if data:
        data[picked.randrange(len(data))] ^= 1 << picked.randrange(8)
    store.put(key, bytes(data))


def cut(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Cut off a part of the end."""
    data = store.get(key)
    store.put(key, data[: picked.randrange(len(data))] if data else b"")


def empty(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Leave no byte."""
    store.put(key, b"")


def swap(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Exchange the values of two keys."""
    mine, theirs = store.get(key), store.get(other)
    store.put(key, theirs)
    store.put(other, mine)


def delete(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Remove the object."""
    store.delete(key)


DAMAGES = (flip, cut, empty, swap, delete)
