"""What a store in S3 does without a server; `tests/integration/test_s3.py` uses a real one."""

from __future__ import annotations

import pickle

import pytest

from pawcast.errors import UsageError
from pawcast.store.s3 import RETRY_POLICY, RetryPolicy, S3Store


def test_a_pickled_store_contains_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = S3Store("s3://bucket/prefix/")
    assert store._client is store._client
    data = pickle.dumps(store)
    assert b"the-secret" not in data
    assert b"the-key-id" not in data
    assert pickle.loads(data).uri == "s3://bucket/prefix"


def test_the_documented_deadline_is_that_of_the_default_policy():
    assert RETRY_POLICY.deadline == 60
    assert "60 s" in (S3Store.__doc__ or "")
    assert RetryPolicy(connect_timeout=1, read_timeout=2, retry_seconds=0).deadline == 6


def test_a_uri_without_a_bucket_is_refused():
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        S3Store("s3:///prefix")
