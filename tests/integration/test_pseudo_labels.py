"""Photos that a model labels with confidence join the training split of a new dataset."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from pawcast_infra.local.drawn_photos import write_zips
from PIL import Image

from pawcast import recipes, registry
from pawcast.data import manifest as manifests
from pawcast.data.ingest import ingest
from pawcast.data.manifest import Manifest, Split
from pawcast.data.reader import SplitReader
from pawcast.data.report import CheckLimits, DataReport
from pawcast.data.verify import verify
from pawcast.errors import DataError, UsageError
from pawcast.inference.engine import Engine
from pawcast.inference.pseudo_labels import pseudo_label
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from pawcast.training.runs import Workers
from pawcast.training.trainer import train
from tests.support.services import job, result_of

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("local_ray")]


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {Path(name).name: file.read(name) for name in file.namelist()}


def again(data: bytes) -> bytes:
    """The same picture in other bytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def truth(tmp_path_factory, photos) -> dict[str, bytes]:
    """Photos of known class. The names that the test gives them don't tell the class."""
    folder = tmp_path_factory.mktemp("more")
    labelled, _ = write_zips(folder, labelled=120, unlabelled=2, seed=7)
    return contents(labelled)


@pytest.fixture(scope="module")
def store(tmp_path_factory, photos, truth) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    known = contents(photos.labelled)
    unlabelled = tmp_path_factory.mktemp("source") / "test1.zip"
    with zipfile.ZipFile(unlabelled, "w") as file:
        for number, data in enumerate(truth.values()):
            file.writestr(f"test1/{number}.jpg", data)
        for number, data in enumerate(known.values()):
            file.writestr(f"test1/{1_000 + number}.jpg", data if number < 10 else again(data))
    ingest(store, "pets", str(photos.labelled), str(unlabelled), test_size=60, limits=CheckLimits(near_duplicates=0.5))
    recipe = recipes.resolve("smoke", ["image_size=48", "batch_size=16", "epochs=12"])
    train(store, "pets", recipe, Workers(number=1, cpus=1), run="teacher")
    return store


@pytest.fixture(scope="module")
def teacher(store) -> Engine:
    return Engine.load(store, "catdog@1")


def trained_on(store: Store, engine: Engine, manifest: Manifest) -> Engine:
    """The same network, registered as if it was trained on another dataset."""
    version = engine.version
    facts = {name: getattr(version, name) for name in type(version).model_fields}
    for name in ("schema_version", "model", "version", "files"):
        del facts[name]
    facts |= {"dataset": manifest.dataset, "dataset_sha256": manifest.digest}
    again = registry.register(store, "other", {WEIGHTS: registry.read_file(store, version, WEIGHTS)}, **facts)
    return Engine.load(store, again.name)


def test_the_training_split_grows_by_photos_that_are_labelled_right(store, teacher, truth):
    done = pseudo_label(store, teacher, "more-pets", min_accuracy=0.98)
    base, manifest = manifests.load(store, "pets"), manifests.load(store, "more-pets")
    assert manifest == done.manifest == verify(store, "more-pets")
    assert {name: split for name, split in manifest.splits.items() if name != "train"} == {
        name: split for name, split in base.splits.items() if name != "train"
    }
    old, new = base.splits["train"], manifest.splits["train"]
    assert new.shards[: len(old.shards)] == old.shards
    added = new.shards[len(old.shards) :]
    rows = list(SplitReader(store, Split(photos=0, per_class={}, shards=added)))
    assert len(rows) == sum(done.joined.values()) == new.photos - old.photos == manifest.pseudo_labels.photos > 60
    assert len(rows) + done.unsure + done.copies == base.splits["unlabelled"].photos
    kinds = list(truth)
    labelled = [(row.label, kinds[int(row.id)].startswith("dog")) for row in rows if int(row.id) < 1_000]
    assert sum(label == dog for label, dog in labelled) >= 0.9 * len(labelled) > 0
    # Copies of labelled photos, and photos that look like one in val or test, are left out.
    report = DataReport.model_validate_json(store.get(manifests.report_key("more-pets", manifest.report_sha256)))
    pairs = [(pair.splits, (pair.first, pair.second)) for pair in report.near_duplicates]
    alike = {
        names[splits.index("unlabelled")]
        for splits, names in pairs
        if {"val", "test"} & set(splits) and "unlabelled" in splits
    }
    copies = {f"{1_000 + number}.jpg" for number in range(10)}
    unlabelled = {row.name for row in SplitReader(store, base.splits["unlabelled"])}
    assert len(alike) > 60
    assert alike | copies <= unlabelled
    assert not (alike | copies) & {row.name for row in rows}
    assert done.copies == len(alike | copies)


def test_a_second_generation_begins_with_the_same_photos(store, teacher):
    first = pseudo_label(store, teacher, "first", min_accuracy=0.95).manifest
    second = pseudo_label(store, trained_on(store, teacher, first), "second", min_accuracy=0.95).manifest
    assert second.pseudo_labels.dataset == first.pseudo_labels.dataset
    assert second.splits == first.splits | {"train": second.splits["train"]}
    assert second.splits["train"].photos == first.splits["train"].photos


def test_the_job_reports_what_joined_and_what_did_not(store):
    options = ("--model", "catdog@1", "--store", store.uri)
    code, output, errors = job("pseudo_label.py", "--dataset", "by-job", *options, "--json", "--min-accuracy", "0.9")
    assert code == 0, errors
    result = result_of(output)
    made = manifests.load(store, "by-job")
    assert result["digest"] == made.digest
    assert result["photos"]["train"] == made.splits["train"].photos
    assert sum(result["joined"].values()) == result["photos"]["train"] - 180


def test_what_can_not_be_done_is_refused(store, teacher, photos):
    with pytest.raises(UsageError, match="a name of its own"):
        pseudo_label(store, teacher, "pets")
    labelled_only = ingest(store, "labelled-only", str(photos.labelled), None, test_size=60).manifest
    with pytest.raises(DataError, match="no unlabelled photos"):
        pseudo_label(store, trained_on(store, teacher, labelled_only), "more")
