"""S3 under faults: a transient one is survived in time, a lasting one is one clear line in time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import botocore.auth
import pytest

from pawcast.errors import IntegrityError, PawcastError, StoreError, StoreFullError, UsageError
from pawcast.store import open_store
from pawcast.store.s3 import RetryPolicy, S3Store
from tests.chaos.conftest import MARGIN, PATIENT, SHORT
from tests.support import fault_proxy as faults
from tests.support.services import free_port, job

VALUE = bytes(range(256)) * 100

# Each fault, and how many times in a row. boto3 alone would survive one, and no truncated body.
TRANSIENT = {
    "500": (faults.error(500, "InternalError"), 2),
    "503 SlowDown": (faults.error(503, "SlowDown"), 2),
    "reset": (faults.reset, 2),
    "lost response": (faults.lose_response, 2),
    "504 for a lost response": (faults.lose_response_as(504, "GatewayTimeout"), 1),
    "cut": (faults.cut, 2),
    "reset midway": (faults.cut_hard, 2),
    "stall": (faults.stall, 1),
    "stall midway": (faults.stall_midway, 1),
}
# Each operation's key as it appears in the URL. No key is a prefix of another.
PATHS = {
    "get": "/got",
    "put": "/put",
    "put_if_absent": "/new",
    "put_if_match": "/swap",
    "delete": "/delete",
    "list": "%2Flist",
    "exists": "%2Fexists",
}


def operations(store: S3Store, etag: str = "") -> dict[str, Callable[[], bool]]:
    """Each operation on a key of its own. It returns whether it worked on what `prepare` wrote."""
    return {
        "get": lambda: store.get("got") == VALUE,
        "put": lambda: store.put("put", VALUE) is None,
        "put_if_absent": lambda: store.put_if_absent("new", VALUE),
        "put_if_match": lambda: store.put_if_match("swap", b"swapped", etag),
        "delete": lambda: store.delete("delete") is None,
        "list": lambda: list(store.list("list/")) == ["list/a", "list/b"],
        "exists": lambda: store.exists("exists"),
    }


def prepare(store: S3Store) -> str:
    """Write what the operations need; return the ETag for `put_if_match`."""
    for key in ("got", "swap", "delete", "list/a", "list/b", "exists"):
        store.put(key, VALUE)
    return store.get_with_etag("swap")[1]


@contextmanager
def within(policy: RetryPolicy) -> Iterator[None]:
    """Check that the block ends within the deadline of a policy."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < policy.deadline + MARGIN


def failure(work: Callable[[], object], policy: RetryPolicy = SHORT) -> PawcastError:
    """Return the error that the work raises: one line, in time, without a secret."""
    with within(policy), pytest.raises(PawcastError) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert "only-for-this-test" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", TRANSIENT)
def test_a_transient_fault_is_survived(store, proxy, name):
    work = operations(store, prepare(store))
    fault, times = TRANSIENT[name]
    rules = [proxy.inject(fault, key=path, times=times) for path in PATHS.values()]
    with within(PATIENT), ThreadPoolExecutor(len(work)) as pool:
        results = dict(zip(work, pool.map(lambda do: do(), work.values()), strict=True))
    assert results == dict.fromkeys(work, True)
    assert all(1 <= rule.hits <= times for rule in rules)
    assert store.get("put") == store.get("new") == VALUE
    assert store.get("swap") == b"swapped"
    assert not store.exists("delete")


def test_a_value_that_fails_its_checksum_once_is_fetched_again(store, proxy):
    store.put("k", VALUE)
    rule = proxy.inject(faults.flip_under_checksum, "GET")
    assert store.get("k") == VALUE
    assert rule.hits == 1


def test_a_server_that_refuses_connections_for_a_while_is_waited_for(store, proxy):
    with proxy.refusing(1.5), within(PATIENT):
        store.put("k", VALUE)
    assert store.get("k") == VALUE


def test_a_slow_upload_is_not_a_stall(uri, proxy):
    data = bytes(2**23)
    proxy.pause = 0.02
    S3Store(uri, RetryPolicy(connect_timeout=1, read_timeout=8)).put("k", data)
    assert len(proxy.requests) == 1
    assert S3Store(uri).get("k") == data


def test_an_upload_that_arrives_with_wrong_bytes_is_sent_again(store, proxy):
    rule = proxy.inject(faults.flip_upload, "PUT", times=2)
    store.put("k", VALUE)
    assert store.get("k") == VALUE
    assert rule.hits == 2


def test_the_server_checks_the_digest_that_the_caller_passes(store, uri):
    assert store.put_if_absent("right", VALUE, hashlib.sha256(VALUE).hexdigest())
    wrong = hashlib.sha256(b"another value").hexdigest()
    assert "BadDigest" in str(failure(lambda: S3Store(uri, SHORT).put_if_absent("wrong", VALUE, wrong)))
    assert not store.exists("wrong")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (faults.error(500, "InternalError"), "kept failing at k. Received: 500 InternalError"),
        (faults.error(503, "SlowDown"), "kept failing at k. Received: 503 SlowDown"),
        (faults.reset, "could not be reached"),
        (faults.stall, "could not be reached"),
        (faults.cut, "could not be reached"),
        (faults.stall_midway, "could not be reached"),
    ],
    ids=["500", "503", "reset", "stall", "cut", "stall midway"],
)
def test_a_lasting_fault_is_one_line_in_time(store, uri, proxy, fault, says):
    store.put("k", VALUE)
    proxy.inject(fault, times=1_000)
    error = failure(lambda: S3Store(uri, SHORT).get("k"))
    assert type(error) is StoreError
    assert says in str(error)


def test_an_absent_server_is_one_line_in_time(uri, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "could not be reached" in str(failure(lambda: S3Store(uri, SHORT).put_if_absent("k", b"")))


def test_an_endpoint_that_is_no_url_is_a_usage_error(uri, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:8333")
    assert type(failure(lambda: S3Store(uri).get("k"))) is UsageError


def test_an_impossible_bucket_name_is_refused_without_a_request(proxy):
    assert type(failure(lambda: S3Store("s3://Not A Bucket/x").get("k"))) is StoreError
    assert proxy.requests == []


def test_a_value_that_keeps_failing_its_checksum_is_an_integrity_error_with_the_key(store, uri, proxy):
    store.put("some/shard", VALUE)
    proxy.inject(faults.flip_under_checksum, "GET", times=1_000)
    error = failure(lambda: S3Store(uri, SHORT).get("some/shard"))
    assert type(error) is IntegrityError
    assert "some/shard" in str(error)


def test_a_full_server_is_reported_at_the_first_response(store, proxy):
    proxy.inject(faults.error(507, "XMinioStorageFull"), times=1_000)
    assert type(failure(lambda: store.put("k", VALUE))) is StoreFullError
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (400, "ExpiredToken", "refused the credentials"),
        (403, "ExpiredToken", "refused the credentials"),
        (403, "InvalidAccessKeyId", "refused the credentials"),
        (403, "SignatureDoesNotMatch", "refused the credentials"),
        (403, "AccessDenied", "refused the credentials for"),
        (403, "RequestTimeTooSkewed", "disagree about the time"),
    ],
)
def test_refused_credentials_fail_at_the_first_response(store, proxy, status, code, says):
    for work in operations(store).values():
        proxy.reset()
        proxy.inject(faults.error(status, code), times=1_000)
        error = failure(work)
        assert type(error) is StoreError
        assert says in str(error)
        assert code in str(error)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("name", "code"), [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId")]
)
def test_wrong_credentials_are_sent_to_the_real_server_once(uri, proxy, monkeypatch, name, code):
    monkeypatch.setenv(name, "somebody")
    assert code in str(failure(lambda: S3Store(uri).put("k", b"")))
    assert len(proxy.requests) == 1


def test_a_wrong_clock_is_reported_after_one_request_to_the_real_server(uri, proxy, monkeypatch):
    now = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: now(*a, **k) + timedelta(hours=3))
    assert "set this machine's clock" in str(failure(lambda: S3Store(uri).put("k", b"")))
    assert len(proxy.requests) == 1


def test_without_credentials_no_request_is_sent(uri, proxy, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "no usable credentials" in str(failure(lambda: S3Store(uri).get("k")))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in str(failure(lambda: S3Store(uri).get("k")))
    assert proxy.requests == []


def test_a_job_with_expired_credentials_ends_with_one_line(uri, proxy):
    proxy.inject(faults.error(400, "ExpiredToken"), times=1_000)
    code, output, errors = job("promote.py", "catdog", "latest", "production", "--store", uri, "--json")
    assert (code, output) == (6, "")
    (line,) = errors.splitlines()
    assert line.startswith("error:")
    assert "ExpiredToken" in line
    assert len(proxy.requests) == 1


def test_a_conditional_write_whose_response_was_lost_succeeds(store, proxy):
    proxy.inject(faults.lose_response, "PUT", "new")
    assert store.put_if_absent("new", b"mine")
    assert not store.put_if_absent("new", b"mine")
    _, etag = store.get_with_etag("new")
    proxy.inject(faults.lose_response, "PUT", "new")
    assert store.put_if_match("new", b"again mine", etag)
    assert not store.put_if_match("new", b"again mine", etag)


def test_the_check_after_a_lost_response_is_retried_too(store, proxy):
    proxy.inject(faults.lose_response, "PUT", "new")
    cut = proxy.inject(faults.cut, "GET", "new")
    assert store.put_if_absent("new", VALUE)
    assert cut.hits == 1


def test_a_retried_write_that_lost_to_another_writer_returns_false(store, uri, proxy):
    others = open_store(uri)

    def they_write(handler, body):
        others.put("k", b"theirs")
        faults.reset(handler, body)

    proxy.inject(they_write, "PUT", "k")
    assert not store.put_if_absent("k", b"mine")
    _, etag = store.get_with_etag("k")
    assert store.put_if_match("k", b"ours", etag)
    _, etag = store.get_with_etag("k")
    proxy.inject(they_write, "PUT", "k")
    assert not store.put_if_match("k", b"mine", etag)
    assert store.get("k") == b"theirs"


def test_a_conflict_of_two_writes_in_progress_is_retried(store, proxy):
    conflict = faults.error(409, "ConditionalRequestConflict")
    proxy.inject(conflict, "PUT")
    assert store.put_if_absent("k", b"1")
    proxy.inject(conflict, "PUT")
    assert not store.put_if_absent("k", b"1")
    _, etag = store.get_with_etag("k")
    proxy.inject(conflict, "PUT")
    assert store.put_if_match("k", b"2", etag)
    proxy.inject(conflict, "PUT")
    assert not store.put_if_match("k", b"2", etag)


def test_a_conflict_that_never_ends_is_an_error(uri, proxy):
    proxy.inject(faults.error(409, "ConditionalRequestConflict"), "PUT", times=1_000)
    assert "ConditionalRequestConflict" in str(failure(lambda: S3Store(uri, SHORT).put_if_absent("k", b"1")))


def test_a_pickled_store_has_its_retry_policy_and_no_secrets(store):
    state = store.__getstate__()
    assert state["retry_policy"] == PATIENT
    assert "only-for-this-test" not in json.dumps(state)


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        (faults.error(503, "SlowDown"), "PUT"),
        (faults.reset, "POST"),
        (faults.lose_response, "PUT"),
        (faults.cut, "GET"),
    ],
    ids=["503", "reset", "lost response", "cut"],
)
def test_arrow_survives_transient_faults_too_as_checkpoints_need(store, proxy, fault, method):
    filesystem, path = store.filesystem("runs/1")
    rule = proxy.inject(fault, method, "state")
    with filesystem.open_output_stream(f"{path}/state") as file:
        file.write(VALUE)
    with filesystem.open_input_stream(f"{path}/state") as file:
        assert file.read() == VALUE
    assert rule.hits == 1


def test_an_endpoint_for_s3_alone_holds_for_boto3_and_arrow(uri, proxy, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    store = S3Store(uri, SHORT)
    filesystem, path = store.filesystem("runs/1")
    with filesystem.open_output_stream(f"{path}/state") as file:
        file.write(VALUE)
    assert store.get("runs/1/state") == VALUE
