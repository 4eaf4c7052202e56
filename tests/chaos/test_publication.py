"""Concurrent publications in S3 and in a folder: one dataset, one winner, no lost update."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.ingest import ingest
from pawcast.data.manifest import Manifest, Split
from pawcast.errors import ConflictError
from pawcast.store import Store, open_store
from tests.support import fault_proxy as faults

ROWS = [shards.PhotoRow(f"cat.{i}", f"cat.{i}.jpg", 0, "ab" * 32, 3, 2, bytes([i % 256]) * 50) for i in range(30)]


@pytest.fixture(params=["s3", "folder"])
def store_uri(request: pytest.FixtureRequest, tmp_path) -> str:
    return request.getfixturevalue("uri") if request.param == "s3" else str(tmp_path)


def manifest_of(store: Store, seed: int) -> Manifest:
    """Write the shards of a dataset; return its manifest."""
    shard = shards.write(store, "pets", "train", ROWS, ["cat", "dog"])
    split = Split(photos=30, per_class={"cat": 30}, shards=[shard])
    facts = {
        "dataset": "pets",
        "classes": ["cat", "dog"],
        "source_sha256": "0" * 64,
        "quarantine": [],
        "report_sha256": "",
    }
    return Manifest(seed=seed, splits={"train": split}, **facts)


def publish_concurrently(store_uri: str, seeds: list[int]) -> list[str | ConflictError]:
    """Publish from threads with a store each, all of which read the same `latest` before."""
    start = threading.Barrier(len(seeds))

    def publish(seed: int) -> str | ConflictError:
        store = open_store(store_uri)
        manifest = manifest_of(store, seed)
        since = manifests.read_latest(store, "pets")
        start.wait(30)
        try:
            return manifests.publish(store, manifest, since)
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(len(seeds)) as pool:
        return list(pool.map(publish, seeds))


def manifests_in(store: Store) -> list[str]:
    return list(store.list("datasets/pets/manifests/"))


@pytest.mark.parametrize("earlier", [False, True], ids=["first of its name", "after another"])
def test_equal_datasets_all_succeed_and_are_stored_once(proxied_s3, store_uri, earlier):
    store = open_store(store_uri)
    if earlier:
        manifests.publish(store, manifest_of(store, 0))
    digests = publish_concurrently(store_uri, [1] * 4)
    assert len(set(digests)) == 1
    assert manifests.load(store, "pets").digest == digests[0]
    assert len(manifests_in(store)) == 1 + earlier
    assert len(list(store.list("datasets/pets/shards/"))) == 1


@pytest.mark.parametrize("earlier", [False, True], ids=["first of its name", "after another"])
def test_of_two_different_datasets_one_wins_and_the_other_is_a_conflict(proxied_s3, store_uri, earlier):
    store = open_store(store_uri)
    if earlier:
        manifests.publish(store, manifest_of(store, 0))
    results = publish_concurrently(store_uri, [1, 2])
    (winner,) = [result for result in results if isinstance(result, str)]
    (loser,) = [result for result in results if isinstance(result, ConflictError)]
    assert "pets@latest at the same time" in str(loser)
    assert manifests.load(store, "pets").digest == winner
    assert len(manifests_in(store)) == 2 + earlier
    # The advice in the error works.
    name = str(loser).split("Fix: use ")[1].split(",")[0]
    assert manifests.load(store, name).digest != winner


def test_a_move_of_latest_whose_response_was_lost_is_no_conflict(store, proxy):
    proxy.inject(faults.lose_response, "PUT", "refs/latest")
    first = manifests.publish(store, manifest_of(store, 1))
    assert manifests.load(store, "pets").digest == first
    proxy.inject(faults.lose_response, "PUT", "refs/latest")
    second = manifests.publish(store, manifest_of(store, 2))
    assert manifests.load(store, "pets").digest == second != first


def test_a_move_of_latest_during_another_write_is_retried(store, proxy):
    proxy.inject(faults.error(409, "ConditionalRequestConflict"), "PUT", "refs/latest")
    assert manifests.publish(store, manifest_of(store, 1)) == manifests.load(store, "pets").digest


def test_no_manifest_is_written_when_its_shards_cannot_be(store, proxy):
    proxy.inject(faults.error(403, "AccessDenied"), "PUT", "/shards/")
    with pytest.raises(Exception, match="refused"):
        manifest_of(store, 1)
    assert list(store.list("")) == []


@pytest.mark.usefixtures("local_ray")
def test_two_equal_concurrent_ingests_make_one_dataset(uri, photos):
    start = threading.Barrier(2)

    def run(_: int) -> Manifest:
        start.wait(30)
        return ingest(open_store(uri), "pets", str(photos.labelled), test_size=60).manifest

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(run, range(2))
    assert one == other == manifests.load(open_store(uri), "pets")
    assert len(manifests_in(open_store(uri))) == 1


@pytest.mark.usefixtures("local_ray")
def test_of_two_different_concurrent_ingests_the_later_is_a_conflict(uri, store, photos):
    other: list[str] = []

    def meanwhile(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        if not other and stage == "writing":
            other.append(manifests.publish(store, manifest_of(store, 2)))

    with pytest.raises(ConflictError, match="pets@latest"):
        ingest(open_store(uri), "pets", str(photos.labelled), test_size=60, progress=meanwhile)
    assert manifests.load(store, "pets").digest == other[0]
    assert len(manifests_in(store)) == 2
