"""The photos that a bulk run reads: their identity."""

from __future__ import annotations

import pytest

from pawcast.client.photos import SourcePhotos
from pawcast.errors import PawcastError
from tests.support.files import make_folder, make_zip


def test_equal_photos_have_one_digest_wherever_they_are(tmp_path):
    files = {"a/1.jpg": b"one", "a/2.jpg": b"two"}
    others = [
        files | {"a/3.jpg": b""},
        {"a/1.jpg": b"one"},
        files | {"a/2.jpg": b"three"},
        {"a/1.jpg": b"", "a/4.jpg": b""},
    ]
    for make, ending in ((make_folder, ""), (make_zip, ".zip")):
        first = SourcePhotos(make(tmp_path / f"x{ending}", files)).source_digest
        assert SourcePhotos(make(tmp_path / f"y{ending}", files)).source_digest == first
        digests = {
            SourcePhotos(make(tmp_path / f"z{i}{ending}", other)).source_digest for i, other in enumerate(others)
        }
        assert len(digests | {first}) == 5
    # Of the same size: only a zip knows without reading.
    same_size = make_zip(tmp_path / "s.zip", files | {"a/2.jpg": b"TWO"})
    assert SourcePhotos(same_size).source_digest != first
    table = make_folder(tmp_path / "t", files | {"labels.csv": b"file,label\na/1.jpg,cat\na/2.jpg,dog\n"})
    csv = SourcePhotos(f"{table}/labels.csv")
    (tmp_path / "t" / "a" / "2.jpg").unlink()
    assert len(csv) == 2
    with pytest.raises(PawcastError):
        csv.check()
