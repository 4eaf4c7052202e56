"""Ingest as Ray tasks: exact, reproducible, and careful with what it can't read."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from pawcast.data import manifest as manifests
from pawcast.data.ingest import IngestResult, ingest
from pawcast.data.manifest import Manifest
from pawcast.data.reader import SplitReader
from pawcast.data.report import CheckLimits, DataReport
from pawcast.data.verify import verify
from pawcast.errors import DataError, IntegrityError, NotFoundError, UsageError
from pawcast.store import open_store
from tests.support.cases import case

pytestmark = pytest.mark.usefixtures("local_ray")
SIZES = {"test_size": 60, "val_fraction": 0.25}


def make(store: Path | str, labelled: Path, unlabelled: Path | None, **options: object) -> Manifest:
    return ingested(store, labelled, unlabelled, **options).manifest


def ingested(store: Path | str, labelled: Path, unlabelled: Path | None, **options: object) -> IngestResult:
    options = {**SIZES, **options}
    source = unlabelled and str(unlabelled)
    return ingest(open_store(str(store)), "pets", str(labelled), source, **options)  # type: ignore[arg-type]


def shuffled(archive: Path, target: Path) -> Path:
    """The same members in another order, as another tool might have zipped them."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in sorted(old.namelist(), key=lambda name: name[::-1]):
            new.writestr(name, old.read(name))
    return target


def test_splits_are_exact_and_every_photo_is_in_one(tmp_path, photos):
    manifest = make(tmp_path, photos.labelled, photos.unlabelled)
    assert {name: split.photos for name, split in manifest.splits.items()} == {
        "train": 180,
        "val": 60,
        "test": 60,
        "unlabelled": 40,
    }
    assert manifest.splits["train"].per_class == {"cat": 90, "dog": 90}
    store = open_store(str(tmp_path))
    with zipfile.ZipFile(photos.labelled) as archive:
        originals = {Path(name).name: archive.read(name) for name in archive.namelist()}
    seen = []
    for name in ("train", "val", "test"):
        for row in SplitReader(store, manifest.splits[name]):
            assert row.data == originals[row.name]
            assert row.label == int(row.name.startswith("dog"))
            seen.append(row.name)
    assert sorted(seen) == sorted(originals)


def test_zip_folder_and_shuffled_zip_give_one_digest(tmp_path, photos):
    from_zip = make(tmp_path / "a", photos.labelled, photos.unlabelled)
    from_folder = make(tmp_path / "b", photos.labelled_folder, photos.unlabelled_folder)
    from_shuffled = make(tmp_path / "c", shuffled(photos.labelled, tmp_path / "s.zip"), photos.unlabelled)
    again = make(tmp_path / "a", photos.labelled, photos.unlabelled)
    assert len({m.digest for m in (from_zip, from_folder, from_shuffled, again)}) == 1
    assert make(tmp_path / "a", photos.labelled, photos.unlabelled, seed=1).digest != from_zip.digest


def test_s3_holds_what_a_folder_holds(tmp_path, photos, s3):
    in_folder = make(tmp_path, photos.labelled, photos.unlabelled)
    in_s3 = make(f"{s3}/ingest", photos.labelled, photos.unlabelled)
    assert in_s3.digest == in_folder.digest
    store = open_store(f"{s3}/ingest")
    assert manifests.load(store, "pets") == in_s3
    assert len(list(SplitReader.open(store, "pets", "train"))) == 180


def test_unreadable_photos_are_quarantined_by_name(tmp_path, photos):
    folder = shutil.copytree(photos.labelled_folder, tmp_path / "photos")
    (folder / "cat.0.jpg").write_bytes(b"not a photo")
    whole = (folder / "dog.0.jpg").read_bytes()
    (folder / "dog.0.jpg").write_bytes(whole[: len(whole) // 2])
    manifest = make(tmp_path / "store", folder, None)
    assert [item.name for item in manifest.quarantine] == ["cat.0.jpg", "dog.0.jpg"]
    assert all(item.reason for item in manifest.quarantine)
    assert sum(split.photos for split in manifest.splits.values()) == 298
    with pytest.raises(DataError, match="2 of 300 photos can't be decoded"):
        make(tmp_path / "other", folder, None, limits=CheckLimits(unreadable=0.001))
    with pytest.raises(NotFoundError):
        manifests.load(open_store(str(tmp_path / "other")), "pets")


def test_copies_stay_in_one_split(tmp_path, photos):
    folder = shutil.copytree(photos.labelled_folder, tmp_path / "photos")
    for i in range(20):
        shutil.copy(folder / f"cat.{i}.jpg", folder / f"cat.{1000 + i}.jpg")
    manifest = make(tmp_path / "store", folder, None)
    store = open_store(str(tmp_path / "store"))
    splits: dict[str, set[str]] = {}
    for name in ("train", "val", "test"):
        for row in SplitReader(store, manifest.splits[name]):
            splits.setdefault(row.sha256, set()).add(name)
    assert len(splits) == 300
    assert all(len(names) == 1 for names in splits.values())
    assert manifest.splits["test"].photos == 60


def test_one_photo_under_two_labels_is_an_error(tmp_path, photos):
    folder = shutil.copytree(photos.labelled_folder, tmp_path / "photos")
    shutil.copy(folder / "cat.3.jpg", folder / "dog.999.jpg")
    with pytest.raises(DataError, match=r"cat\.3\.jpg \(cat\) = dog\.999\.jpg \(dog\)"):
        make(tmp_path / "store", folder, None)


def test_the_report_counts_the_findings_and_is_stored_with_the_dataset(tmp_path, photos):
    folder = shutil.copytree(photos.labelled_folder, tmp_path / "photos")
    shutil.copy(folder / "cat.1.jpg", folder / "cat.1001.jpg")
    Image.open(folder / "dog.5.jpg").save(folder / "dog.1005.jpg", "PNG")
    Image.new("RGB", (9, 400)).save(folder / "dog.1006.jpg")
    (folder / "cat.1007.jpg").write_bytes(b"\xff\xd8\xff broken")
    for i in range(20, 60):
        # The same photo at another size: near, whatever split it goes to.
        photo = Image.open(folder / f"cat.{i}.jpg")
        photo.resize((2 * photo.width, 2 * photo.height)).save(folder / f"cat.{2000 + i}.jpg", quality=95)
    manifest, report = ingested(
        tmp_path / "store", folder, photos.unlabelled_folder, limits=CheckLimits(near_duplicates=1)
    )
    checks = {check.name: check for check in report.checks}
    assert (checks["unreadable"].photos, checks["size"].photos, checks["duplicates"].photos) == (1, 1, 1)
    assert checks["unreadable"].examples[0].startswith("cat.1007.jpg")
    assert "dog.1005.jpg (PNG)" in checks["extension"].examples
    assert report.duplicates == [["cat.1.jpg", "cat.1001.jpg"]]
    assert report.classes == {"cat": 191, "dog": 151}
    assert report.formats == {"JPEG": 381, "PNG": 1}
    assert report.photos == 384
    assert len(report.near_duplicates) >= 10
    assert all(pair.splits[0] != pair.splits[1] for pair in report.near_duplicates)
    store = open_store(str(tmp_path / "store"))
    kept = store.get(manifests.report_key("pets", manifest.report_sha256))
    assert DataReport.model_validate_json(kept) == report
    with pytest.raises(DataError, match="near_duplicates=0"):
        make(tmp_path / "other", folder, None, limits=CheckLimits(near_duplicates=0.01))
    with pytest.raises(DataError, match="largest class, cat"):
        make(tmp_path / "other", folder, None, limits=CheckLimits(near_duplicates=1, majority=0.55))
    with pytest.raises(NotFoundError):
        manifests.load(open_store(str(tmp_path / "other")), "pets")


def test_verify_reads_everything_and_names_what_is_changed_or_missing(tmp_path, photos):
    manifest = make(tmp_path, photos.labelled, photos.unlabelled)
    store = open_store(str(tmp_path))
    seen: list[tuple[str, int, int]] = []
    assert verify(store, "pets", lambda *report: seen.append(report[:3])) == manifest
    assert seen[0] == ("verifying", 0, 340)
    assert seen[-1] == ("verifying", 340, 340)
    shard, other = (manifest.splits[name].shards[0] for name in ("train", "unlabelled"))
    whole = store.get(shard.key)
    store.put(shard.key, whole[:5_000] + bytes([whole[5_000] ^ 1]) + whole[5_001:])
    store.delete(other.key)
    with pytest.raises(IntegrityError, match="2 of 5 objects") as wrong:
        verify(store, "pets")
    assert shard.key in str(wrong.value)
    assert other.key in str(wrong.value)
    # Another ingest restores missing shards. Changed ones must be deleted first.
    store.delete(shard.key)
    assert make(tmp_path, photos.labelled, photos.unlabelled) == manifest
    assert verify(store, f"pets@{manifest.digest[:12]}") == manifest
    store.put(manifests.report_key("pets", manifest.report_sha256), b"{}")
    with pytest.raises(IntegrityError, match="reports/"):
        verify(store, "pets")


def test_a_relative_path_is_read_by_workers_that_run_elsewhere(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(photos.labelled.parent)
    manifest = make(tmp_path / "store", Path(photos.labelled.name), Path("unpacked/test1"))
    assert manifest.digest == make(tmp_path / "other", photos.labelled, photos.unlabelled).digest


@pytest.mark.parametrize("copy", [shutil.copy, shutil.copytree])
def test_a_node_without_the_source_is_named(tmp_path, photos, copy):
    original = photos.labelled if copy is shutil.copy else photos.labelled_folder
    source = Path(copy(original, tmp_path / "source"))

    def remove(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        source.rename(tmp_path / "gone")

    with pytest.raises(NotFoundError, match=r"source isn't on the node [0-9.]+ .*every node has it.*storage that all"):
        make(tmp_path / "store", source, None, progress=remove)


def test_related_photos_stay_in_one_split(tmp_path, photos):
    table = tmp_path / "photos.csv"
    rows = [f"{name}.{i}.jpg,{name},litter {name} {i // 4}" for name in ("cat", "dog") for i in range(120)]
    table.write_text("\n".join(["file,label,litter", *rows]))
    for i in range(120):
        for name in ("cat", "dog"):
            shutil.copy(photos.labelled_folder / f"{name}.{i}.jpg", tmp_path)
    manifest = make(tmp_path / "store", table, None, group="litter")
    store = open_store(str(tmp_path / "store"))
    homes: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for row in SplitReader(store, manifest.splits[split]):
            name, number = row.id.split(".")
            homes.setdefault(f"{name} {int(number) // 4}", set()).add(split)
    assert len(homes) == 60
    assert all(len(splits) == 1 for splits in homes.values())
    assert manifest.splits["test"].photos == 56
    assert manifest.splits["test"].per_class == {"cat": 28, "dog": 28}


def test_group_and_split_folders_exclude_each_other(tmp_path, photos):
    with pytest.raises(UsageError, match="leave one of them out"):
        make(tmp_path / "store", photos.labelled, None, group="litter", split_folders=True)


def test_the_folders_of_a_source_become_its_splits(tmp_path):
    ignored = ingested(tmp_path / "a", case("filtered.zip"), None, test_size=10)
    check = next(check for check in ignored.report.checks if check.name == "split_folders")
    assert check.photos == check.of
    manifest = make(tmp_path / "b", case("filtered.zip"), None, split_folders=True)
    store = open_store(str(tmp_path / "b"))
    for split, folder in (("train", "train/"), ("val", "validation/")):
        names = [row.name for row in SplitReader(store, manifest.splits[split])]
        assert names
        assert all(folder in name for name in names)


def test_copies_between_labelled_and_unlabelled_photos_are_reported_as_such(tmp_path):
    report = ingested(tmp_path, case("leak_train.zip"), case("leak_test.zip"), test_size=10).report
    checks = {check.name: check for check in report.checks}
    assert checks["duplicates"].photos == 0
    assert checks["copies_across_splits"].photos == 6
    assert {pair.splits[1] for pair in report.copies_across_splits} == {"unlabelled"}


def test_all_photos_under_both_labels_are_named(tmp_path):
    with pytest.raises(DataError, match="3 photos have two labels") as caught:
        make(tmp_path, case("bothlabels.zip"), None, test_size=10)
    assert str(caught.value).count(" = ") == 3


def test_contradictions_are_counted_and_the_folder_decides(tmp_path):
    report = ingested(tmp_path, case("contradict.zip"), None, test_size=10).report
    assert next(check for check in report.checks if check.name == "contradictions").photos == 5
    assert report.classes == {"cat": 20, "dog": 20}


def test_a_class_without_a_photo_is_an_error(tmp_path, photos):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(80):
        shutil.copy(photos.labelled_folder / f"cat.{i}.jpg", folder)
    with pytest.raises(DataError, match="no usable photo of class dog"):
        make(tmp_path / "store", folder, None, limits=CheckLimits(majority=1))
