"""S3's error codes: which are retried, and the line that each one becomes."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    NoCredentialsError,
    SSLError,
)

from pawcast.errors import IntegrityError, NotFoundError, StoreAccessError, StoreError, StoreFullError
from pawcast.store import s3_errors


def client_error(status: int, code: str, retries: int = 0) -> ClientError:
    metadata = {"HTTPStatusCode": status, "RetryAttempts": retries}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": metadata}, "PutObject")


@pytest.mark.parametrize(
    ("status", "code", "kind", "line"),
    [
        (404, "NoSuchKey", NotFoundError, "has no k"),
        (404, "NoSuchBucket", StoreAccessError, "There is no bucket 'b'. Received: 404 NoSuchBucket. Fix: create it"),
        (400, "ExpiredToken", StoreAccessError, "refused the credentials. Received: 400 ExpiredToken. Fix: renew"),
        (403, "AccessDenied", StoreAccessError, "refused the credentials for k"),
        (403, "RequestTimeTooSkewed", StoreAccessError, "disagree about the time"),
        (507, "XMinioStorageFull", StoreFullError, "is full, so k was not written"),
        (503, "SlowDown", StoreError, "kept failing at k. Received: 503 SlowDown"),
        (400, "EntityTooLarge", StoreAccessError, "refused k. Received: 400 EntityTooLarge"),
    ],
)
def test_each_code_becomes_one_line(status, code, kind, line):
    with pytest.raises(kind) as caught, s3_errors.translate_errors("s3://b/p", "b", "k"):
        raise client_error(status, code)
    assert type(caught.value) is kind
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (NoCredentialsError(), StoreError, "no usable credentials"),
        (EndpointConnectionError(endpoint_url="http://x"), StoreError, "could not be reached"),
        (FlexibleChecksumError(error_msg="x"), IntegrityError, "k in s3://b/p"),
    ],
)
def test_errors_of_boto3_itself_become_one_line(error, kind, line):
    with pytest.raises(kind, match=line), s3_errors.translate_errors("s3://b/p", "b", "k"):
        raise error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (client_error(503, "SlowDown"), True),
        (client_error(500, "InternalError"), True),
        (client_error(409, "ConditionalRequestConflict"), True),
        (client_error(400, "BadDigest"), True),
        (client_error(507, "XMinioStorageFull"), False),
        (client_error(403, "AccessDenied"), False),
        (client_error(412, "PreconditionFailed"), False),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (SSLError(endpoint_url="https://x", error="bad certificate"), False),
        (NoCredentialsError(), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_errors_that_may_end_are_retried(error, transient):
    assert s3_errors.is_transient(error) is transient


def test_a_server_error_or_a_retried_request_may_have_written():
    assert s3_errors.may_have_written(client_error(500, "InternalError"))
    assert s3_errors.may_have_written(client_error(412, "PreconditionFailed", retries=1))
    assert not s3_errors.may_have_written(client_error(412, "PreconditionFailed"))
