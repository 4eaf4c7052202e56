from __future__ import annotations

import zipfile

import numpy as np

from pawcast import images
from pawcast.dataset.synthetic import draw, write_zips


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
        sizes = {images.decode(archive.read(name)).shape for name in names}
    assert len(sizes) > 6
    with zipfile.ZipFile(made[0][1]) as archive:
        assert archive.namelist() == [f"test1/{i}.jpg" for i in range(1, 6)]


def test_colour_alone_tells_nothing():
    means = np.array([np.asarray(draw(i % 2, 3, i), float).mean((0, 1)) for i in range(400)])
    labels = np.arange(400) % 2
    design = np.c_[means, means**2, np.ones(400)]
    weights, *_ = np.linalg.lstsq(design[:200], labels[:200] * 2.0 - 1, rcond=None)
    right = ((design[200:] @ weights > 0) == (labels[200:] == 1)).mean()
    assert 0.38 < right < 0.62
