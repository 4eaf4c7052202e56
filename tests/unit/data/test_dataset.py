"""Splits, shards and manifests, without Ray."""

from __future__ import annotations

import io
import json
from collections import Counter

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, Split
from pawcast.data.split import assign
from pawcast.errors import DataError, IntegrityError, NotFoundError
from pawcast.store import Store, open_store


def identities(cats: int, dogs: int) -> dict[str, str]:
    return {f"{label}-{i}": label for label, count in (("cat", cats), ("dog", dogs)) for i in range(count)}


def test_kaggles_set_splits_as_the_article_splits_it():
    labels = identities(12_500, 12_500)
    split = assign(labels, Counter(labels.keys()), test_size=1_000, val_fraction=0.25, seed=0)
    assert Counter(split.values()) == {"test": 1_000, "val": 6_000, "train": 18_000}
    for name in ("test", "val", "train"):
        per_class = Counter(labels[i] for i, where in split.items() if where == name)
        assert per_class["cat"] == per_class["dog"]


@settings(max_examples=60, deadline=None)
@given(
    cats=st.integers(8, 60),
    dogs=st.integers(8, 60),
    test_size=st.integers(0, 8),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_sizes_are_exact_and_order_does_not_matter(cats, dogs, test_size, seed, data):
    labels = identities(cats, dogs)
    shuffled = dict(data.draw(st.permutations(list(labels.items()))))
    options = {"test_size": test_size, "val_fraction": 0.25, "seed": seed}
    split = assign(labels, Counter(labels.keys()), **options)
    assert split == assign(shuffled, Counter(labels.keys()), **options)
    counts = Counter(split.values())
    assert counts["test"] == test_size
    assert counts["val"] == round((cats + dogs - test_size) * 0.25)


def test_copies_go_together_and_sizes_stay_exact():
    labels = identities(40, 40)
    copies = {identity: 1 + (int(identity.split("-")[1]) % 3 == 0) for identity in labels}
    split = assign(labels, copies, test_size=10, val_fraction=0.25, seed=3)
    sizes: Counter[str] = Counter()
    for identity, where in split.items():
        sizes[where] += copies[identity]
    assert sizes["test"] == 10
    assert sizes["val"] == round((sum(copies.values()) - 10) * 0.25)


def test_another_seed_splits_otherwise_and_too_few_photos_are_refused():
    labels = identities(30, 30)
    one, other = (assign(labels, Counter(labels.keys()), test_size=10, val_fraction=0.2, seed=s) for s in (0, 1))
    assert one != other
    with pytest.raises(DataError, match="too few photos"):
        assign(identities(30, 1), Counter(identities(30, 1).keys()), test_size=10, val_fraction=0.25, seed=0)


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


ROWS = [shards.PhotoRow(f"cat.{i}", f"cat.{i}.jpg", 0, "ab" * 32, 3, 2, bytes([i % 256]) * 50) for i in range(300)]


def publish(store: Store, name: str = "pets") -> Manifest:
    shard = shards.write(store, name, "train", ROWS, ["cat", "dog"])
    split = Split(photos=300, per_class={"cat": 300}, shards=[shard])
    manifest = Manifest(
        dataset=name,
        classes=["cat", "dog"],
        seed=0,
        source_sha256="0" * 64,
        splits={"train": split},
        quarantine=[],
        report_sha256="0" * 64,
    )
    manifests.publish(store, manifest)
    return manifest


def test_a_shard_opens_anywhere_with_its_bytes_untouched(store):
    shard = publish(store).splits["train"].shards[0]
    data = store.get(shard.key)
    frame = pd.read_parquet(io.BytesIO(data))
    assert [row["bytes"] for row in frame["image"]] == [row.data for row in ROWS]
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == 3
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"]["names"] == ["cat", "dog"]
    assert shards.write(store, "pets", "train", ROWS, ["cat", "dog"]) == shard


def test_a_changed_shard_is_never_read(store, tmp_path):
    shard = publish(store).splits["train"].shards[0]
    data = bytearray((tmp_path / shard.key).read_bytes())
    data[100] ^= 1
    (tmp_path / shard.key).write_bytes(data)
    with pytest.raises(IntegrityError, match=shard.sha256[:12]):
        shards.read(store, shard)


def test_a_dataset_is_found_by_name_and_by_digest(store):
    manifest = publish(store)
    for name in ("pets", "pets@latest", f"pets@{manifest.digest}", f"pets@{manifest.digest[:12]}"):
        assert manifests.load(store, name) == manifest
    with pytest.raises(NotFoundError, match="did you mean 'pets'"):
        manifests.load(store, "pet")
    with pytest.raises(NotFoundError):
        manifests.load(store, "pets@0123456789ab")


def test_a_changed_manifest_is_refused(store, tmp_path):
    manifest = publish(store)
    path = tmp_path / "datasets" / "pets" / "manifests" / f"{manifest.digest}.json"
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(IntegrityError, match="was changed"):
        manifests.load(store, "pets")
