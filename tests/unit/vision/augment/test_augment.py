"""Warp, colours and holes, checked against plain numpy and against themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pawcast.recipes.schema import Augmentation
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.augment import warp as warps
from pawcast.vision.augment.sample import AugmentationParams, compose_affine, identity_params, sample_params
from pawcast.vision.augment.warp import jitter_colors, rescale

SIZE = 24
NEUTRAL = {"rotation": 0.0, "shift_x": 0.0, "shift_y": 0.0, "shear": 0.0, "zoom_x": 1.0, "zoom_y": 1.0, "flip": False}
FULL = Augmentation(rotation=30, width_shift=0.2, height_shift=0.1, shear=10, zoom=0.3, horizontal_flip=True)

Warp = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure_tensorflow(1)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture(params=["a GPU's", "a CPU's"])
def warp(request) -> Warp:
    """What a GPU and what a CPU does, from bytes to float32 [n, size, size, 3] of levels from 0 to 255."""
    function = warps._warp_by_tensorflow if request.param == "a GPU's" else warps.warp
    return lambda pixels, transforms, size: function(pixels, transforms, size).numpy() * 255


def transform(**change: float) -> np.ndarray:
    return compose_affine(SIZE, SIZE, **{key: np.array([value]) for key, value in {**NEUTRAL, **change}.items()})


def transforms(augment: Augmentation, photos: int, seed: int = 0) -> np.ndarray:
    return sample_params(augment, SIZE, SIZE, photos, seed, epoch=0).transforms


def by_numpy(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear resampling with nearest fill, pixel by pixel: slow, and plainly right."""
    a0, a1, a2, b0, b1, b2 = matrix[0, :6]
    out = np.empty(photo.shape, np.float32)
    last = len(photo) - 1
    for y in range(SIZE):
        for x in range(SIZE):
            sx, sy = a0 * x + a1 * y + a2, b0 * x + b1 * y + b2
            x0, y0 = int(np.floor(sx)), int(np.floor(sy))
            total = np.zeros(3)
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = abs(1 - dx - (sx - x0)) * abs(1 - dy - (sy - y0))
                    total += weight * photo[np.clip(y0 + dy, 0, last), np.clip(x0 + dx, 0, last)]
            out[y, x] = total
    return out


def test_neutral_leaves_the_photo_and_a_flip_mirrors_it(photo, warp):
    np.testing.assert_allclose(warp(photo[None], transform(), SIZE)[0], photo, atol=1e-3)
    np.testing.assert_allclose(warp(photo[None], transform(flip=True), SIZE)[0], photo[:, ::-1], atol=1e-3)


def test_a_shift_moves_and_repeats_the_edge(photo, warp):
    moved = warp(photo[None], transform(shift_x=3.0), SIZE)[0]
    np.testing.assert_allclose(moved[:, :-3], photo[:, 3:], atol=1e-3)
    np.testing.assert_allclose(moved[:, -3:], np.repeat(photo[:, -1:], 3, 1), atol=1e-3)
    np.testing.assert_allclose(warp(photo[None], transform(shift_y=-2.0), SIZE)[0, 2:], photo[:-2], atol=1e-3)


def test_a_quarter_turn_is_exact(photo, warp):
    np.testing.assert_allclose(warp(photo[None], transform(rotation=np.pi / 2), SIZE)[0], np.rot90(photo), atol=0.02)


def test_zoom_and_shear_keep_the_centre_and_change_what_they_should():
    centre = (SIZE - 1) / 2
    for change in ({"zoom_x": 1.3}, {"zoom_y": 0.7}, {"shear": 0.3}, {"rotation": 0.5}):
        a0, a1, a2, b0, b1, b2 = transform(**change)[0, :6]
        assert a0 * centre + a1 * centre + a2 == pytest.approx(centre, abs=1e-4)
        assert b0 * centre + b1 * centre + b2 == pytest.approx(centre, abs=1e-4)
    assert transform(zoom_x=1.3)[0, 0] == pytest.approx(1.3)
    assert transform(shear=0.3)[0, 1] == pytest.approx(-np.sin(0.3))


@pytest.mark.parametrize("photo_index", range(4))
def test_the_warp_agrees_with_numpy_on_all_seven_together(photo, warp, photo_index):
    matrix = transforms(FULL, 4, seed=1)[photo_index : photo_index + 1]
    # A CPU's is in whole levels.
    np.testing.assert_allclose(warp(photo[None], matrix, SIZE)[0], by_numpy(photo, matrix), atol=0.55)


def test_each_photo_has_its_own_warp(photo, warp):
    both = np.stack([photo, photo[::-1]])
    matrices = transforms(FULL, 2, seed=2)
    alone = [warp(both[i : i + 1], matrices[i : i + 1], SIZE)[0] for i in range(2)]
    np.testing.assert_array_equal(warp(both, matrices, SIZE), alone)


def test_draws_depend_on_seed_epoch_and_photo_alone():
    everything = FULL.model_copy(
        update={"crop_area": 0.4, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "cutout": 0.3}
    )
    draws = sample_params(everything, SIZE, SIZE, 50, seed=7, epoch=3)
    for again, fewer, part in zip(
        sample_params(everything, SIZE, SIZE, 50, seed=7, epoch=3), sample_params(everything, SIZE, SIZE, 20, seed=7, epoch=3), draws,
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(part, again)
        np.testing.assert_array_equal(part[:20], fewer)
    for other in (
        sample_params(everything, SIZE, SIZE, 50, seed=8, epoch=3),
        sample_params(everything, SIZE, SIZE, 50, seed=7, epoch=4),
    ):
        assert all((mine != theirs).any(1).all() for mine, theirs in zip(draws, other, strict=True))
    assert len(np.unique(draws.transforms, axis=0)) == 50
    some = np.array([4, 0])
    assert all((part[some] == rows).all() for part, rows in zip(draws, draws.rows(some), strict=True))


def test_ranges_are_kept_and_reached():
    shifts = transforms(Augmentation(width_shift=0.25), 2_000)[:, 2]
    assert np.abs(shifts).max() <= 0.25 * SIZE + 1e-4
    assert np.abs(shifts).max() > 0.24 * SIZE
    flips = transforms(Augmentation(horizontal_flip=True), 2_000)[:, 0] < 0
    assert 0.45 < flips.mean() < 0.55


def test_switching_one_off_leaves_the_others():
    alone = transforms(Augmentation(width_shift=0.2), 30)[:, 2]
    beside = transforms(Augmentation(width_shift=0.2, zoom=0.0, height_shift=0.1), 30)[:, 2]
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_a_crop_keeps_its_share_of_the_area_within_the_photo():
    rows = transforms(Augmentation(crop_area=0.35, crop_aspect=4 / 3), 2_000)
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


def test_scaling_keeps_edges_where_they_are(warp):
    ramp = np.broadcast_to((np.arange(48, dtype=np.uint8) * 4 + 2)[:, None], (1, 48, 48, 3))
    half = warp(ramp, identity_params(48, 24, 1).transforms, 24)
    assert half.shape == (1, 24, 24, 3)
    np.testing.assert_allclose(half[0, 0, :, 0], np.arange(24) * 8 + 4, atol=1e-3)


def test_colours_are_those_of_the_formula(photo):
    photo = rescale(photo).numpy()
    brightness, contrast, saturation = 0.1, 1.2, 0.7
    grey = photo @ np.array([0.299, 0.587, 0.114], np.float32)
    expected = grey[..., None] + saturation * (photo - grey[..., None])
    expected = np.clip(contrast * (expected - 0.5) + 0.5 + brightness, 0, 1)
    found = jitter_colors(photo[None], np.array([[brightness, contrast, saturation]], np.float32)).numpy()[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0 < (expected == 1).mean() < 0.5


def test_a_hole_hides_its_square_and_nothing_else(photo):
    photo = rescale(photo).numpy()
    hole = np.array([[0.25, 0.5, 0.75, 1.2]], np.float32)
    found = warps.cutout(photo[None], hole).numpy()[0]
    expected = photo.copy()
    expected[12:, 6:18] = 0.5
    np.testing.assert_array_equal(found, expected)


def test_what_is_off_changes_nothing(photo):
    draws = sample_params(Augmentation(), SIZE, SIZE, 1, seed=3, epoch=1)
    np.testing.assert_allclose(
        warps.augment_batch(Augmentation(), photo[None], draws, SIZE)[0], rescale(photo), atol=1e-5
    )
    strong = AugmentationParams(
        draws.transforms, np.array([[0.5, 2, 0]], np.float32), np.array([[0, 0, 1, 1]], np.float32)
    )
    np.testing.assert_allclose(
        warps.augment_batch(Augmentation(), photo[None], strong, SIZE)[0], rescale(photo), atol=1e-5
    )
    changed = warps.augment_batch(Augmentation(brightness=0.1, cutout=0.5), photo[None], strong, SIZE).numpy()[0]
    assert (changed == 0.5).all()


def test_rescaling_is_one_over_255():
    np.testing.assert_allclose(rescale(np.array([0, 51, 255], np.uint8)).numpy(), [0, 0.2, 1], rtol=1e-6)
