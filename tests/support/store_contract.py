"""What every store must do. The tests of each kind of store run this."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from pawcast.errors import NotFoundError
from pawcast.store import Store

WRITERS = 8


def check_contract(store: Store) -> None:
    """Run every operation on an empty store; leave it empty."""
    with pytest.raises(NotFoundError):
        store.get("a/b")
    assert not store.exists("a/b")
    store.put("a/b", b"1")
    store.put("a/b", b"2")
    assert store.get("a/b") == b"2"
    assert store.exists("a/b")
    assert not store.put_if_absent("a/b", b"3")
    assert store.put_if_absent("a/c", b"4")
    assert list(store.list("a/")) == ["a/b", "a/c"]
    assert list(store.list("a/c")) == ["a/c"]
    _, etag = store.get_with_etag("a/b")
    assert store.put_if_match("a/b", b"5", etag)
    assert not store.put_if_match("a/b", b"6", etag)
    assert store.get("a/b") == b"5"
    assert pickle.loads(pickle.dumps(store)).get("a/b") == b"5"
    _check_concurrent_writers(store)
    for key in ("a/b", "a/c", "race/new", "never/there"):
        store.delete(key)
    assert list(store.list("")) == []


def _check_concurrent_writers(store: Store) -> None:
    """Of all who write one key under one condition, exactly one succeeds."""
    with ThreadPoolExecutor(WRITERS) as pool:
        created = list(pool.map(lambda i: store.put_if_absent("race/new", f"{i}".encode()), range(WRITERS)))
        assert sum(created) == 1
        value, etag = store.get_with_etag("race/new")
        assert value == str(created.index(True)).encode()
        swapped = list(pool.map(lambda i: store.put_if_match("race/new", f"s{i}".encode(), etag), range(WRITERS)))
        assert sum(swapped) == 1
        assert store.get("race/new") == f"s{swapped.index(True)}".encode()
