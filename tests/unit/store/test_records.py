"""Records and contents prove themselves; what an earlier Pawcast wrote is refused in one line."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Literal

import pytest

from pawcast.core.records import Record
from pawcast.data import manifest as manifests
from pawcast.errors import IntegrityError
from pawcast.store import Store, open_store, records
from tests.support.damage import DAMAGES

KEY, FIX = "notes/a.json", "write it again"
# As Pawcast wrote it when the test split was called `holdout` and the unlabelled one `test`.
MANIFEST_OF_SCHEMA_2 = {
    "classes": ["cat", "dog"],
    "dataset": "pets",
    "quarantine": [],
    "report_sha256": "0" * 64,
    "schema_version": 2,
    "seed": 0,
    "source_sha256": "0" * 64,
    "splits": {name: {"per_class": {}, "photos": 0, "shards": []} for name in ("holdout", "test", "train", "val")},
}


class Note(Record):
    schema_version: Literal[2] = 2
    text: str
    numbers: tuple[float | None, ...] = ()


NOTE = Note(text='naïve "quotes"\n', numbers=(0.1, 1e-300, None))


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def test_a_record_comes_back_and_reads_well(store):
    records.write(store, KEY, NOTE)
    assert records.read(store, KEY, Note, FIX) == NOTE
    lines = store.get(KEY).decode().splitlines()
    assert lines[:3] == ["{", ' "schema_version": 2,', ' "text": "naïve \\"quotes\\"\\n",']
    assert lines[-1] == "}"
    # Any program can check the proof.
    body, _, rest = store.get(KEY).partition(b',\n "sha256": "')
    assert rest[:64].decode() == hashlib.sha256(KEY.encode() + b"\n" + body).hexdigest()


def test_create_writes_once(store):
    assert records.create(store, KEY, NOTE)
    assert not records.create(store, KEY, Note(text="other"))
    assert records.read(store, KEY, Note, FIX) == NOTE


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_record_or_content_is_named_with_what_to_do(store, damage):
    picked = random.Random(0)
    for _ in range(40):
        data = records.seal(KEY, NOTE)
        store.put(KEY, data)
        store.put("other", records.seal("other", Note(text="other")))
        damage(store, KEY, "other", picked)
        for read in (
            lambda: records.read(store, KEY, Note, FIX),
            lambda data=data: records.read_content(store, KEY, hashlib.sha256(data).hexdigest(), FIX),
        ):
            with pytest.raises(IntegrityError, match=r"notes/a\.json.* Fix: write it again") as caught:
                read()
            assert "\n" not in str(caught.value)


def test_a_damaged_content_is_replaced_when_it_is_written_again(store):
    digest = hashlib.sha256(b"content").hexdigest()
    for damaged in (b"", b"contemt", b"content "):
        store.put(digest, damaged)
        records.write_content(store, digest, b"content", digest)
        assert records.read_content(store, digest, digest, FIX) == b"content"


def test_nan_and_infinity_become_null(store):
    records.write(store, KEY, {"auc": float("nan"), "loss": [float("inf"), 0.5]})
    fields = json.loads(store.get(KEY))
    assert (fields["auc"], fields["loss"]) == (None, [None, 0.5])


@pytest.mark.parametrize(
    ("fields", "received"),
    [
        ({"schema_version": 1, "words": "x"}, "schema_version 1. Expected: 2"),
        ({"schema_version": 2, "text": 7}, "text Input should be a valid string"),
    ],
)
def test_a_whole_record_of_another_version_says_so(store, fields, received):
    records.write(store, KEY, fields)
    with pytest.raises(IntegrityError, match=f"can't be read by this version of Pawcast. Received: {received}"):
        records.read(store, KEY, Note, FIX)


@pytest.mark.parametrize("data", [NOTE.model_dump_json(indent=1).encode(), b"3", b"0" * 64])
def test_what_an_earlier_pawcast_wrote_says_so(store, data):
    store.put(KEY, data)
    with pytest.raises(IntegrityError, match="written by an earlier version of Pawcast"):
        records.read(store, KEY, Note, FIX)


@pytest.mark.parametrize("name", ["pets", "pets@latest"])
def test_a_manifest_that_an_earlier_pawcast_wrote_says_to_ingest_again(store, name):
    data = json.dumps(MANIFEST_OF_SCHEMA_2, sort_keys=True, indent=1).encode() + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    key = f"datasets/pets/manifests/{digest}.json"
    store.put(key, data)
    records.write(store, "datasets/pets/refs/latest", {"target": digest})
    with pytest.raises(IntegrityError) as caught:
        manifests.load(store, name)
    assert str(caught.value) == (
        f"{key} in {store.uri} can't be read by this version of Pawcast. Received: schema_version 2. Expected: 3. "
        "Fix: run `pawcast ingest` again; the splits stay the same."
    )
