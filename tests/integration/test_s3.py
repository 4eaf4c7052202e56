"""A real S3 server keeps the contract that a folder keeps."""

from __future__ import annotations

import pytest

from pawcast.errors import StoreError
from pawcast.store import open_store
from tests.support.store_contract import check_contract


def test_s3_keeps_the_contract(s3):
    check_contract(open_store(f"{s3}/contract"))


def test_a_listing_has_more_than_one_page(s3):
    store = open_store(f"{s3}/pages")
    keys = [f"k/{i:04d}" for i in range(1_005)]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("k/")) == keys


def test_refused_credentials_are_one_clear_line(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="refused the credentials"):
        open_store(f"{s3}/x").put("k", b"")
