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


@pytest.fixture
def dead_proxy(monkeypatch) -> str:
    """Have the environment name a proxy at which nothing answers."""
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    return "127.0.0.1:9"


def test_a_service_on_this_machine_is_reached_without_the_proxy(stub, dead_proxy):
    assert classify(b"photo", stub.url)["model"] == "sums@1"
    for host in ("localhost", "127.0.0.2", "[::1]"):
        assert service_client._proxy(httpx.URL(f"http://{host}:8000")) == ""


def test_an_error_names_the_proxy_without_its_password(dead_proxy):
    with pytest.raises(
        ServiceError, match=rf"No server answers.*proxy {dead_proxy}; set NO_PROXY=cats\.example"
    ) as caught:
        classify(b"photo", "http://cats.example:8000")
    assert "secret" not in str(caught.value)


def test_an_answer_of_the_proxy_names_the_proxy(stub, dead_proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", stub.url)
    stub.about = (407, {}, b"<html>who are you</html>")
    with pytest.raises(ServiceError, match=r"HTTP 407.*through the proxy"):
        classify(b"photo", "http://cats.example:8000")


def test_no_proxy_is_honoured(dead_proxy, monkeypatch):
    monkeypatch.setenv("no_proxy", "cats.example")
    assert service_client._proxy(httpx.URL("http://cats.example:8000")) == ""
