"""The client of one service: one photo, keys, and Retry-After."""

from __future__ import annotations

import httpx
import pytest

from pawcast.client import service_client
from pawcast.client.service_client import classify
from pawcast.errors import ImageError, ServiceError, UsageError
from tests.support.stub_service import first, scores


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        *[(value, 0) for value in ("soon", "-3", "nan", "", "1e999", "Wed, 21 Oct 2015 07:28:00 GMT")],
    ],
)
def test_an_invalid_retry_after_is_ignored(value, seconds):
    assert service_client._retry_after(httpx.Response(503, headers={"retry-after": value})) == seconds
    assert service_client._retry_after(httpx.Response(503)) == 0


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel"])
def test_an_invalid_key_is_refused_and_not_shown(stub, key):
    with pytest.raises(UsageError) as caught:
        classify(b"photo", stub.url, key)
    assert key not in str(caught.value)


def test_one_photo(stub):
    assert classify(b"photo", stub.url, "k")["scores"] == scores(b"photo")
    assert stub.headers[0]["authorization"] == "Bearer k"
    with pytest.raises(ImageError, match="no photo"):
        classify(b"bad", stub.url)
    stub.request_sizes.clear()
    stub.rules.append(first(1, 429, {"retry-after": "0"}))
    assert classify(b"photo", stub.url)["model"] == "sums@1"


def test_one_photo_is_given_up_after_a_while(stub, monkeypatch):
    monkeypatch.setattr(service_client, "START_SECONDS", 0.4)
    stub.rules.append(first(99, 503))
    with pytest.raises(ServiceError, match="HTTP 503: later"):
        classify(b"photo", stub.url)
