"""An S3 server in memory with faults, and the environment that makes boto3 use it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.cases import case
from tests.support.services import free_port, plain_environment, started_process, wait_for


@contextmanager
def fake_s3(mode: str, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URI of a bucket on a server with a fault, such as `readonly` or `no-conditions`."""
    port = free_port()
    with started_process(str(case("fakes3.py")), str(port), mode, environment=plain_environment()):
        wait_for(lambda: _accepts_connections(port), 20)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "only-for-this-test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield "s3://bucket/x"


def _accepts_connections(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
