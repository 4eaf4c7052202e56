"""Sampled parameters and the affine map, checked against Keras's own `apply_affine_transform`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pawcast.recipes.schema import Augmentation
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.augment.sample import AffineParams, compose_affine, sample_params

SIZE = 24
ALL_WARPS = Augmentation(rotation=30, width_shift=0.2, height_shift=0.1, shear=10, zoom=0.3, horizontal_flip=True)


def sample_transforms(augmentation: Augmentation, photos: int) -> np.ndarray:
    return sample_params(augmentation, SIZE, SIZE, photos, seed=0, epoch=0).transforms


@pytest.fixture
def keras_map(monkeypatch):
    """Keras's output-to-input map of what `ImageDataGenerator` passes to `apply_affine_transform`.

    Keras's own code composes the map. SciPy, which isn't installed, is replaced where it would
    resample.
    """
    configure_tensorflow(1)
    from keras.src.legacy.preprocessing import image

    def resample(channel, matrix, offset, **_):
        maps.append((matrix.copy(), offset.copy()))
        return channel

    maps: list[tuple[np.ndarray, np.ndarray]] = []
    interpolation = SimpleNamespace(affine_transform=resample)
    monkeypatch.setattr(image, "scipy", SimpleNamespace(ndimage=SimpleNamespace(interpolation=interpolation)))

    def as_row(**parameters: float) -> np.ndarray:
        maps.clear()
        blank = np.zeros((SIZE, SIZE, 1))
        image.apply_affine_transform(blank, row_axis=0, col_axis=1, channel_axis=2, **parameters)
        ((m, o),) = maps  # (row, column) to (row, column)
        return np.array([m[1, 1], m[1, 0], o[1], m[0, 1], m[0, 0], o[0]])

    return as_row


@pytest.mark.parametrize(
    ("params", "keras_parameters"),
    [
        (AffineParams(rotation=np.deg2rad(17)), {"theta": 17}),
        (AffineParams(shift_x=3, shift_y=-5), {"tx": 3, "ty": -5}),
        (AffineParams(zoom_x=1.2, zoom_y=0.8), {"zx": 1.2, "zy": 0.8}),
        (AffineParams(shear=np.deg2rad(9)), {"shear": 9}),
        (
            AffineParams(np.deg2rad(17), 3, -5, np.deg2rad(9), 1.2, 0.8),
            {"theta": 17, "tx": 3, "ty": -5, "shear": 9, "zx": 1.2, "zy": 0.8},
        ),
    ],
)
def test_the_affine_map_is_that_of_keras(keras_map, params, keras_parameters):
    ours = compose_affine(params, SIZE, SIZE)[0, :6]
    np.testing.assert_allclose(ours, keras_map(**keras_parameters), atol=1e-4)


def test_numbers_and_arrays_are_broadcast():
    zooms = np.array([0.8, 1.0, 1.2])
    together = compose_affine(AffineParams(rotation=0.3, zoom_x=zooms), SIZE, SIZE)
    alone = [compose_affine(AffineParams(rotation=0.3, zoom_x=zoom), SIZE, SIZE)[0] for zoom in zooms]
    np.testing.assert_array_equal(together, alone)
    assert together.dtype == np.float32


def test_zoom_and_shear_keep_the_centre_and_change_what_they_should():
    centre = (SIZE - 1) / 2
    for params in (
        AffineParams(zoom_x=1.3),
        AffineParams(zoom_y=0.7),
        AffineParams(shear=0.3),
        AffineParams(rotation=0.5),
    ):
        a0, a1, a2, b0, b1, b2 = compose_affine(params, SIZE, SIZE)[0, :6]
        assert a0 * centre + a1 * centre + a2 == pytest.approx(centre, abs=1e-4)
        assert b0 * centre + b1 * centre + b2 == pytest.approx(centre, abs=1e-4)
    assert compose_affine(AffineParams(zoom_x=1.3), SIZE, SIZE)[0, 0] == pytest.approx(1.3)
    assert compose_affine(AffineParams(shear=0.3), SIZE, SIZE)[0, 1] == pytest.approx(-np.sin(0.3))


def test_params_depend_on_seed_epoch_and_photo_alone():
    everything = ALL_WARPS.model_copy(
        update={"crop_area": 0.4, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "cutout": 0.3}
    )
    params = sample_params(everything, SIZE, SIZE, 50, seed=7, epoch=3)
    again = sample_params(everything, SIZE, SIZE, 50, seed=7, epoch=3)
    fewer = sample_params(everything, SIZE, SIZE, 20, seed=7, epoch=3)
    for field, same, first in zip(params, again, fewer, strict=True):
        np.testing.assert_array_equal(field, same)
        np.testing.assert_array_equal(field[:20], first)
    for other in (
        sample_params(everything, SIZE, SIZE, 50, seed=8, epoch=3),
        sample_params(everything, SIZE, SIZE, 50, seed=7, epoch=4),
    ):
        assert all((a != b).any(1).all() for a, b in zip(params, other, strict=True))
    assert len(np.unique(params.transforms, axis=0)) == 50
    some = np.array([4, 0])
    assert all((field[some] == rows).all() for field, rows in zip(params, params.rows(some), strict=True))


def test_ranges_are_kept_and_reached():
    shifts = sample_transforms(Augmentation(width_shift=0.25), 2_000)[:, 2]
    assert np.abs(shifts).max() <= 0.25 * SIZE + 1e-4
    assert np.abs(shifts).max() > 0.24 * SIZE
    flips = sample_transforms(Augmentation(horizontal_flip=True), 2_000)[:, 0] < 0
    assert 0.45 < flips.mean() < 0.55


def test_switching_one_change_off_leaves_the_others():
    alone = sample_transforms(Augmentation(width_shift=0.2), 30)[:, 2]
    beside = sample_transforms(Augmentation(width_shift=0.2, zoom=0.0, height_shift=0.1), 30)[:, 2]
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_a_crop_keeps_its_share_of_the_area_and_stays_within_the_photo():
    rows = sample_transforms(Augmentation(crop_area=0.35, crop_aspect=4 / 3), 2_000)
    across, down = rows[:, 0], rows[:, 4]
    area, ratio = across * down, across / down
    assert area.min() == pytest.approx(0.35, abs=0.01)
    assert 0.65 < area.mean() < 0.7
    assert ratio.max() <= 4 / 3 + 1e-3
    assert ratio.min() >= 3 / 4 - 1e-3
    # The edges of the first and of the last pixel, in the photo's own pixels.
    for scale, offset in ((across, rows[:, 2]), (down, rows[:, 5])):
        assert (offset + scale * -0.5 >= -0.5 - 1e-3).all()
        assert (offset + scale * (SIZE - 0.5) <= SIZE - 0.5 + 1e-3).all()
