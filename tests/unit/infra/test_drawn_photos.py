"""Drawn photos: reproducible, and only their shapes tell the classes apart."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from pawcast_infra.local.drawn_photos import draw, write_zips

from pawcast.errors import StoreError
from pawcast.vision import decode


def test_equal_seeds_give_equal_zips_in_kaggles_layout(tmp_path):
    made = [
        write_zips(tmp_path / name, labelled=12, unlabelled=5, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert [path.read_bytes() for path in made[0]] == [path.read_bytes() for path in made[1]]
    assert made[0][0].read_bytes() != made[2][0].read_bytes()
    with zipfile.ZipFile(made[0][0]) as archive:
        names = [f"train/{label}.{i}.jpg" for i in range(6) for label in ("cat", "dog")]
        assert sorted(archive.namelist()) == sorted(names)
        sizes = {decode.decode(archive.read(name)).shape for name in names}
    assert len(sizes) > 6
    with zipfile.ZipFile(made[0][1]) as archive:
        assert archive.namelist() == [f"test1/{i}.jpg" for i in range(1, 6)]


def test_color_alone_does_not_tell_the_classes_apart():
    means = np.array([np.asarray(draw(i % 2, 3, i), float).mean((0, 1)) for i in range(400)])
    labels = np.arange(400) % 2
    design = np.c_[means, means**2, np.ones(400)]
    weights, *_ = np.linalg.lstsq(design[:200], labels[:200] * 2.0 - 1, rcond=None)
    right = ((design[200:] @ weights > 0) == (labels[200:] == 1)).mean()
    assert 0.38 < right < 0.62


def test_a_picture_depends_on_its_label_seed_and_index_alone():
    first = draw(0, 5, 7).tobytes()
    assert first == draw(0, 5, 7).tobytes()
    assert len({first, draw(1, 5, 7).tobytes(), draw(0, 6, 7).tobytes(), draw(0, 5, 8).tobytes()}) == 4


def test_pictures_are_rgb_of_120_to_220_pixels_a_side():
    pictures = [draw(i % 2, 2, i) for i in range(60)]
    sides = np.array([picture.size for picture in pictures])
    assert {picture.mode for picture in pictures} == {"RGB"}
    assert sides.min() >= 120
    assert sides.max() <= 220
    assert np.ptp(sides[:, 0] / sides[:, 1]) > 0.5


def test_zip_members_have_fixed_metadata_and_readable_permissions(tmp_path):
    for path in write_zips(tmp_path, labelled=4, unlabelled=3, seed=0):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.comment == b""
            facts = {(m.date_time, m.external_attr >> 16, m.extra, m.comment) for m in archive.infolist()}
        assert facts == {((1980, 1, 1, 0, 0, 0), 0o100644, b"", b"")}


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    write_zips(tmp_path, labelled=4, unlabelled=3, seed=0, progress=lambda *report: seen.append(report))
    assert seen == [("drawing", done, 7) for done in range(8)]


def test_zips_are_replaced_atomically_and_an_unwritable_folder_is_a_store_error(tmp_path):
    before = [path.read_bytes() for path in write_zips(tmp_path / "new", labelled=4, unlabelled=1, seed=0)]
    after = [path.read_bytes() for path in write_zips(tmp_path / "new", labelled=4, unlabelled=1, seed=0)]
    assert before == after
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["test1.zip", "train.zip"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="can't be written"):
        write_zips(tmp_path / "file", labelled=2, unlabelled=1, seed=0)
