"""The S3 server of the tests behind a proxy that injects faults, and a store with little patience."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlparse

import pytest

from pawcast.runtime import ray_session
from pawcast.store.s3 import RetryPolicy, S3Store
from tests.support.fault_proxy import Proxy

# Long enough for a busy machine to answer, short enough to wait for.
LIMITS = RetryPolicy(connect=2, read=2, attempts=2, patience=4)
SHORT = RetryPolicy(connect=0.5, read=0.5, attempts=2, patience=0.5)
# What a busy machine may add to a deadline.
MARGIN = 10


@pytest.fixture(scope="session")
def proxied_s3(s3: str) -> Iterator[Proxy]:
    """The proxy; from here on it is where `AWS_ENDPOINT_URL` points."""
    upstream = urlparse(os.environ["AWS_ENDPOINT_URL"]).netloc
    with Proxy(upstream) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture(scope="session")
def local_ray(proxied_s3: Proxy) -> Iterator[None]:
    """A private Ray, whose processes reach S3 through the proxy."""
    with ray_session.connect(cpus=2):
        yield


@pytest.fixture
def proxy(proxied_s3: Proxy) -> Iterator[Proxy]:
    """The proxy, which has nothing in mind yet."""
    proxied_s3.reset()
    yield proxied_s3
    proxied_s3.reset()


@pytest.fixture
def uri(s3: str) -> str:
    """An empty place in the bucket."""
    return f"{s3}/{uuid.uuid4().hex}"


@pytest.fixture
def store(proxy: Proxy, uri: str) -> S3Store:
    """A store at an empty place, behind the proxy."""
    return S3Store(uri, LIMITS)
