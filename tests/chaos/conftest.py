"""The S3 server of the tests behind a fault proxy, and stores with short timeouts."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlparse

import pytest

from pawcast.runtime import ray_session
from pawcast.store.s3 import RetryPolicy, S3Store
from tests.support.fault_proxy import Proxy

PATIENT = RetryPolicy(connect_timeout=2, read_timeout=2, retry_seconds=4)
"""Long enough for a busy machine to respond, short enough for a test."""
SHORT = RetryPolicy(connect_timeout=0.5, read_timeout=0.5, retry_seconds=0.5)
"""For faults that last."""
MARGIN = 10
"""Seconds that a busy machine may add to a deadline."""


@pytest.fixture(scope="session")
def proxied_s3(s3: str) -> Iterator[Proxy]:
    """The proxy. `AWS_ENDPOINT_URL` points at it for the rest of the session."""
    upstream = urlparse(os.environ["AWS_ENDPOINT_URL"]).netloc
    with Proxy(upstream) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture(scope="session")
def local_ray(proxied_s3: Proxy) -> Iterator[None]:
    """A private Ray whose processes reach S3 through the proxy."""
    with ray_session.connect(cpus=2):
        yield


@pytest.fixture
def proxy(proxied_s3: Proxy) -> Iterator[Proxy]:
    """The proxy, without any fault."""
    proxied_s3.reset()
    yield proxied_s3
    proxied_s3.reset()


@pytest.fixture
def uri(s3: str) -> str:
    """The URI of an empty prefix in the bucket."""
    return f"{s3}/{uuid.uuid4().hex}"


@pytest.fixture
def store(proxy: Proxy, uri: str) -> S3Store:
    """An empty store behind the proxy."""
    return S3Store(uri, PATIENT)
