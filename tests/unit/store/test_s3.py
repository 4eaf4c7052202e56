"""A store in S3, with a server in memory; `tests/integration/test_s3.py` uses a real one."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pawcast.errors import StoreError, UsageError
from pawcast.store import open_store, warn_if_conditions_are_ignored
from pawcast.store.s3 import RETRY_POLICY, RetryPolicy, S3Store
from tests.support.fake_s3 import fake_s3
from tests.support.services import free_port
from tests.support.store_contract import check_contract


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


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a/b/", "bucket", "a/b"),
        ("s3://bucket/team#1", "bucket", "team#1"),
        ("s3://bucket/a?x=1&y#z", "bucket", "a?x=1&y#z"),
        ("s3://bucket/a%20b c", "bucket", "a%20b c"),
    ],
)
def test_a_prefix_may_hold_any_character(uri, bucket, prefix):
    store = S3Store(uri)
    assert (store.bucket, store.prefix) == (bucket, prefix)


@pytest.mark.parametrize("suffix", ["", "/team#1", "/a?x=1#y", "/naïve %20+"])
def test_a_server_in_memory_keeps_the_contract(monkeypatch, suffix):
    with fake_s3("ok", monkeypatch) as uri:
        other = open_store(f"{uri}/other")
        other.put("a/b", b"theirs")
        check_contract(open_store(uri.removesuffix("/x") + (suffix or "/alone")))
        assert other.get("a/b") == b"theirs"


@pytest.mark.parametrize(
    ("mode", "header"), [("no-checksum", "x-amz-checksum-sha256"), ("no-conditions", "If-None-Match")]
)
def test_a_refused_header_is_named_with_the_setting_that_helps(monkeypatch, mode, header):
    with fake_s3(mode, monkeypatch) as uri:
        with pytest.raises(StoreError) as caught:
            open_store(uri).put_if_absent("k", b"1")
        line = str(caught.value)
        assert header in line
        assert "Received: 501 NotImplemented" in line
        assert "AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in line
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        if mode == "no-checksum":
            check_contract(open_store(uri))
            return
        with pytest.raises(StoreError, match=r"the header If-None-Match. Received: 501 .* Fix: choose a server"):
            open_store(uri).put_if_absent("k", b"1")


@pytest.mark.parametrize(("mode", "warned"), [("ignore-conditions", 1), ("ok", 0)])
def test_a_server_that_ignores_conditions_is_warned_about(monkeypatch, mode, warned):
    with fake_s3(mode, monkeypatch) as uri:
        warnings: list[str] = []
        warn_if_conditions_are_ignored(open_store(uri), warnings.append)
        assert len(warnings) == warned
        assert all("ignores If-None-Match" in line and uri in line for line in warnings)
        assert list(open_store(uri).list("")) == []


def test_a_folder_is_not_asked_about_conditions(tmp_path):
    warn_if_conditions_are_ignored(open_store(str(tmp_path / "store")), pytest.fail)
    assert not (tmp_path / "store").exists()


def test_an_expired_token_is_reported_at_the_first_response(monkeypatch):
    with fake_s3("expire:2", monkeypatch) as uri:
        store = open_store(uri)
        store.put("k", b"1")
        assert store.get("k") == b"1"
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"refused the credentials. Received: 400 ExpiredToken. Fix: renew"):
            store.get("k")
        assert time.monotonic() - started < RETRY_POLICY.retry_seconds / 2


def test_a_loopback_server_is_reached_without_the_proxy(monkeypatch):
    with fake_s3("ok", monkeypatch) as uri:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        check_contract(open_store(uri))


@pytest.mark.parametrize("listens", [False, True], ids=["absent", "answers 502"])
def test_a_proxy_that_does_not_work_is_named(monkeypatch, listens):
    with fake_s3("ok", monkeypatch), refusing_proxy() as port:
        proxy = f"http://127.0.0.1:{port if listens else free_port()}"
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("//", "//user:secret@"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.255.255.1:9000")
        with pytest.raises(StoreError, match=f"through the proxy {proxy}") as caught:
            S3Store("s3://bucket/x", RetryPolicy(1, 1, 0)).get("k")
        assert "HTTP_PROXY" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


@contextmanager
def refusing_proxy() -> Iterator[int]:
    """Run a proxy that answers 502 to whatever it is asked."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(502)

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
