from __future__ import annotations

import pytest

from pawcast.core.proxies import is_loopback, proxy_of


@pytest.fixture(autouse=True)
def proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy:3128/")


@pytest.mark.parametrize("host", ["127.0.0.1:8333", "127.8.9.1", "localhost:80", "[::1]:8333", "s3.localhost"])
def test_loopback_has_no_proxy(host):
    assert proxy_of(f"http://{host}/x") == ""


def test_the_environment_decides_about_other_hosts(monkeypatch):
    assert proxy_of("http://10.0.0.1:9000") == "http://proxy:3128"
    assert proxy_of("https://s3.amazonaws.com") == ""
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    assert proxy_of("https://s3.amazonaws.com") == "http://all:1"
    monkeypatch.setenv("HTTPS_PROXY", "http://tls:2")
    assert proxy_of("https://s3.amazonaws.com") == "http://tls:2"
    monkeypatch.setenv("NO_PROXY", "10.0.0.1,amazonaws.com")
    assert proxy_of("http://10.0.0.1:9000") == proxy_of("https://s3.amazonaws.com") == ""


def test_names_that_only_look_like_loopback_are_none():
    assert not any(map(is_loopback, ["", "127.0.0.1.example.com", "notlocalhost", "10.0.0.1", "128.0.0.1"]))
