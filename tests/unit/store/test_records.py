from __future__ import annotations

import hashlib
import json
from typing import Literal

import pytest

from pawcast.core.records import Record
from pawcast.data import manifest as manifests
from pawcast.errors import IntegrityError
from pawcast.store import open_store, records

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


def test_a_record_of_this_schema_is_returned():
    assert records.parse(Note, b'{"schema_version": 2, "text": "x"}', "The note", "write it again") == Note(text="x")


@pytest.mark.parametrize(
    ("data", "received"),
    [
        (b'{"schema_version": 1, "words": "x"}', "schema_version 1. Expected: schema_version 2"),
        (b'{"schema_version": 3}', "schema_version 3. Expected: schema_version 2"),
        (b'{"schema_version": 2, "text": 7}', "text: Input should be a valid string"),
        (b"{", "JSON: Invalid JSON"),
    ],
)
def test_any_other_record_is_one_line_that_says_what_to_do(data, received):
    with pytest.raises(IntegrityError, match=received) as caught:
        records.parse(Note, data, "The note", "write it again")
    assert str(caught.value).startswith("The note can't be read by this version of Pawcast. Received: ")
    assert str(caught.value).endswith(". Fix: write it again.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pets", "pets@latest"])
def test_a_manifest_that_an_earlier_pawcast_wrote_says_to_ingest_again(tmp_path, name):
    store = open_store(str(tmp_path))
    data = json.dumps(MANIFEST_OF_SCHEMA_2, sort_keys=True, indent=1).encode() + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    store.put(f"datasets/pets/manifests/{digest}.json", data)
    store.put("datasets/pets/refs/latest", digest.encode())
    with pytest.raises(IntegrityError) as caught:
        manifests.load(store, name)
    assert str(caught.value) == (
        f"The manifest of {name} can't be read by this version of Pawcast. Received: schema_version 2. "
        "Expected: schema_version 3. Fix: run `pawcast ingest` again; the splits stay the same."
    )
