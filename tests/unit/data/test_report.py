"""The report: what each check counts, by which splits, and reports of earlier versions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pawcast.data import report as reports
from pawcast.data.inspect import ImageRecord
from pawcast.data.manifest import QuarantinedPhoto
from pawcast.data.report import CheckLimits, DataReport, build_report, enforce_limits, quality_checks
from pawcast.data.sources import LeftOut, Listing, Photo
from pawcast.errors import DataError
from pawcast.vision.decode import ImageHeader

RANDOM = np.random.default_rng(0)


def record(name: str, sha256: str, label: int = 0, hashes: tuple[bytes, bytes] | None = None) -> ImageRecord:
    photo = Photo(name, f"{name}.jpg", f"pets/{name}.jpg", label)
    hashes = hashes or (RANDOM.bytes(16), RANDOM.bytes(16))
    return ImageRecord("a.zip", photo, sha256, 1, ImageHeader("JPEG", "RGB", 30, 20), hashes)


def listing(**found: list[object]) -> Listing:
    return Listing(**{"photos": [], "left_out": [], "contradictions": [], "split_folders": [], **found})


def report_of(splits: dict[str, list[ImageRecord]], *listings: Listing) -> DataReport:
    records = [record for photos in splits.values() for record in photos]
    checks = quality_checks(records, [], listings, split_folders=False)
    return build_report(records, checks, splits, ["cat", "dog"], listings)


def test_every_check_has_a_limit():
    report = report_of({"train": [record("a", "1")]})
    assert [check.name for check in report.checks] == list(CheckLimits.model_fields)


def test_files_of_other_kinds_are_a_row_with_a_limit():
    listings = [
        listing(left_out=[LeftOut("heic", 50, ("a.heic", "b.heic")), LeftOut("link", 1, ("c",))]),
        listing(left_out=[LeftOut("link", 2, ("d",))]),
    ]
    report = report_of({"train": [record(f"{i}", f"{i}") for i in range(47)]}, *listings)
    check = next(check for check in report.checks if check.name == "left_out")
    assert (check.photos, check.of) == (53, 100)
    assert check.meaning == "are of other kinds and are left out: 50 heic, 3 link"
    assert check.examples == ["a.heic", "b.heic", "c"]
    assert report.left_out == {"heic": 50, "link": 3}
    with pytest.raises(DataError, match=r"53 of 100 files are of other kinds.*50 heic.*--limit left_out=0\.531"):
        enforce_limits(report.checks, CheckLimits())
    enforce_limits(report.checks, CheckLimits(left_out=0.531, majority=1))


def test_contradictions_and_ignored_folders_are_counted():
    found = listing(contradictions=["cat/dog_bed.jpg"], split_folders=["pets"])
    records = [record(f"{i}", f"{i}") for i in range(4)]
    counts = {check.name: check.photos for check in quality_checks(records, [], [found], split_folders=False)}
    assert (counts["contradictions"], counts["split_folders"]) == (1, 4)
    used = {check.name: check.photos for check in quality_checks(records, [], [found], split_folders=True)}
    assert used["split_folders"] == 0


def test_a_photo_that_crashed_the_decoder_counts_as_unreadable():
    photo = QuarantinedPhoto(name="bad.jpg", kind="unreadable", reason="crashed the decoder")
    (check, *_) = quality_checks([record("a", "1")], [photo], [], split_folders=False)
    assert (check.name, check.photos, check.of) == ("unreadable", 1, 2)
    assert check.examples == ["bad.jpg (crashed the decoder)"]


def test_copies_in_one_split_and_across_splits_are_told_apart():
    report = report_of(
        {
            "train": [record("b", "1"), record("a", "1"), record("c", "2")],
            "val": [record("d", "3")],
            "test": [record("e", "2")],
            "unlabelled": [record("f", "1", -1), record("g", "4", -1), record("h", "4", -1), record("i", "3", -1)],
        }
    )
    checks = {check.name: check for check in report.checks}
    assert (checks["duplicates"].photos, checks["duplicates"].examples) == (2, ["b.jpg", "h.jpg"])
    across = checks["copies_across_splits"]
    assert across.meaning.endswith("of another split: 1 train/test, 1 train/unlabelled, 1 val/unlabelled")
    assert across.examples == [
        "a.jpg (train) and f.jpg (unlabelled)",
        "c.jpg (train) and e.jpg (test)",
        "d.jpg (val) and i.jpg (unlabelled)",
    ]
    assert [(pair.first, pair.second, pair.splits) for pair in report.copies_across_splits][1] == (
        "c.jpg",
        "e.jpg",
        ("train", "test"),
    )
    assert report.duplicates == [
        ["a.jpg", "b.jpg", "f.jpg"],
        ["c.jpg", "e.jpg"],
        ["d.jpg", "i.jpg"],
        ["g.jpg", "h.jpg"],
    ]


def test_copies_with_one_name_in_two_sources_are_all_counted():
    report = report_of({"train": [record("a", "1"), record("b", "1")], "unlabelled": [record("b", "1", -1)]})
    counts = {check.name: check.photos for check in report.checks}
    assert (counts["duplicates"], counts["copies_across_splits"]) == (1, 1)


def test_near_duplicates_are_counted_by_splits_and_may_be_mirrored():
    straight, mirrored = RANDOM.bytes(16), RANDOM.bytes(16)
    report = report_of(
        {
            "train": [record("a", "1", hashes=(straight, mirrored))],
            "test": [record("b", "2", hashes=(mirrored, straight))],
            "unlabelled": [record("c", "3", -1, hashes=(straight, mirrored))],
        }
    )
    found = [(pair.first, pair.second, pair.splits, pair.mirrored) for pair in report.near_duplicates]
    assert found == [
        ("a.jpg", "b.jpg", ("train", "test"), True),
        ("a.jpg", "c.jpg", ("train", "unlabelled"), False),
        ("b.jpg", "c.jpg", ("test", "unlabelled"), True),
    ]
    check = next(check for check in report.checks if check.name == "near_duplicates")
    assert check.meaning.endswith(": 1 test/unlabelled, 1 train/test, 1 train/unlabelled")


def test_a_report_of_an_earlier_version_can_be_read():
    report = report_of({"train": [record("a", "1"), record("b", "1")], "test": [record("c", "1")]})
    older = json.loads(report.to_json())
    del older["copies_across_splits"], older["left_out"]
    pair = {"first": "a.jpg", "second": "c.jpg", "splits": ["train", "test"], "distance": 3}
    older["near_duplicates"] = [pair]
    read = DataReport.model_validate_json(json.dumps(older))
    assert read.copies_across_splits == []
    assert not read.near_duplicates[0].mirrored


def test_ranges_of_the_longest_side_are_identifiers():
    assert reports._histogram([64, 65, 300, 5_000]) == {"up_to_64": 1, "up_to_128": 1, "up_to_512": 1, "over_4096": 1}
