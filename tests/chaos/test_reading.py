"""Reading a dataset under faults: the right bytes, or an error that names the shard."""

from __future__ import annotations

import hashlib
import time
import uuid
import zipfile

import numpy as np
import pytest
import ray

from pawcast.data import blocks, shards
from pawcast.data import manifest as manifests
from pawcast.data.manifest import Split
from pawcast.errors import IntegrityError, StoreError
from pawcast.store.s3 import RETRY_POLICY, S3Store
from tests.chaos.conftest import MARGIN, SHORT
from tests.support import fault_proxy as faults

SIZE, SHARDS, ROWS = 32, 4, 30


@pytest.fixture(scope="module")
def uri(s3) -> str:
    """One prefix for all tests of this module, which only read."""
    return f"{s3}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def split(proxied_s3, uri, photos) -> Split:
    """120 photos in four shards."""
    store = S3Store(uri)
    with zipfile.ZipFile(photos.labelled) as archive:
        names = sorted(archive.namelist())[: SHARDS * ROWS]
        rows = [
            shards.PhotoRow(name, name, i % 2, hashlib.sha256(data).hexdigest(), 1, 1, data)
            for i, name in enumerate(names)
            for data in [archive.read(name)]
        ]
    written = [
        shards.write(store, "pets", "train", rows[i * ROWS : (i + 1) * ROWS], ["cat", "dog"]) for i in range(SHARDS)
    ]
    return Split(photos=len(rows), per_class={}, shards=written)


@pytest.mark.parametrize(
    "fault",
    [faults.error(503, "SlowDown"), faults.reset, faults.cut, faults.cut_hard, faults.stall_midway],
    ids=["503", "reset", "cut", "reset midway", "stall midway"],
)
def test_a_shard_that_arrives_incomplete_is_fetched_again(store, proxy, split, fault):
    rule = proxy.inject(fault, "GET", split.shards[0].sha256)
    assert shards.read(store, split.shards[0]).num_rows == ROWS
    assert rule.hits == 1


@pytest.mark.parametrize("fault", [faults.flip, faults.flip_under_checksum], ids=["no checksum", "checksum"])
def test_a_shard_with_wrong_bytes_is_an_error_that_names_it(uri, proxy, split, fault):
    shard = split.shards[1]
    proxy.inject(fault, "GET", shard.sha256, times=1_000)
    with pytest.raises(IntegrityError, match=shard.key):
        shards.read(S3Store(uri, SHORT), shard)


def test_a_manifest_with_wrong_bytes_is_an_error_that_names_it(store, proxy, split):
    facts = {
        "dataset": "pets",
        "classes": ["cat", "dog"],
        "seed": 0,
        "source_sha256": "0" * 64,
        "quarantine": [],
        "report_sha256": "",
    }
    digest = manifests.publish(store, manifests.Manifest(splits={"train": split}, **facts))
    proxy.inject(faults.flip, "GET", f"manifests/{digest}")
    with pytest.raises(IntegrityError, match=digest):
        manifests.load(store, "pets")


def test_a_shard_that_is_always_truncated_is_one_line(uri, proxy, split):
    proxy.inject(faults.cut, "GET", times=1_000)
    with pytest.raises(StoreError, match="could not be reached") as caught:
        shards.read(S3Store(uri, SHORT), split.shards[0])
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("local_ray")
def test_decoding_survives_transient_faults_with_the_same_pixels(store, proxy, split):
    expected = blocks.decode_split(store, split, SIZE)
    injected = [faults.error(503, "SlowDown"), faults.reset, faults.cut, faults.cut_hard]
    rules = [proxy.inject(fault, "GET", s.sha256, times=2) for fault, s in zip(injected, split.shards, strict=True)]
    started = time.monotonic()
    decoded = blocks.decode_split(store, split, SIZE)
    assert time.monotonic() - started < RETRY_POLICY.deadline + MARGIN
    assert [rule.hits for rule in rules] == [2] * SHARDS
    assert decoded.rows == expected.rows == [ROWS] * SHARDS
    for one, other in zip(expected.blocks, decoded.blocks, strict=True):
        np.testing.assert_array_equal(ray.get(one), ray.get(other))


@pytest.mark.usefixtures("local_ray")
def test_decoding_stops_at_a_shard_with_wrong_bytes_and_names_it(store, proxy, split):
    shard = split.shards[2]
    proxy.inject(faults.flip, "GET", shard.sha256, times=1_000)
    with pytest.raises(IntegrityError, match=shard.key) as caught:
        blocks.decode_split(store, split, SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("local_ray")
def test_decoding_with_expired_credentials_fails_at_the_first_response(store, proxy, split):
    first = split.model_copy(update={"shards": split.shards[:1]})
    proxy.requests.clear()
    proxy.inject(faults.error(400, "ExpiredToken"), times=1_000)
    with pytest.raises(StoreError, match="refused the credentials") as caught:
        blocks.decode_split(store, first, SIZE)
    assert "\n" not in str(caught.value)
    # Tasks that the previous test cancelled may still request other shards.
    assert len([request for request in proxy.requests if first.shards[0].sha256 in request]) == 1
