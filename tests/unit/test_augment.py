"""The warp, checked against plain numpy and against itself."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.augment import compose, draw_transforms, to_unit, warp
from pawcast.devices import configure_tensorflow
from pawcast.recipe import Augment

SIZE = 24
NEUTRAL = {"rotation": 0.0, "shift_x": 0.0, "shift_y": 0.0, "shear": 0.0, "zoom_x": 1.0, "zoom_y": 1.0, "flip": False}
FULL = Augment(rotation=30, width_shift=0.2, height_shift=0.1, shear=10, zoom=0.3, horizontal_flip=True)


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure_tensorflow(1)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)


def transform(**change: float) -> np.ndarray:
    return compose(SIZE, **{key: np.array([value]) for key, value in {**NEUTRAL, **change}.items()})


def warped(photo: np.ndarray, **change: float) -> np.ndarray:
    return warp(photo[None], transform(**change)).numpy()[0]


def by_numpy(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear resampling with nearest fill, pixel by pixel: slow, and plainly right."""
    a0, a1, a2, b0, b1, b2 = matrix[0, :6]
    out = np.empty_like(photo)
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


def test_neutral_leaves_the_photo_and_a_flip_mirrors_it(photo):
    np.testing.assert_allclose(warped(photo), photo, atol=1e-5)
    np.testing.assert_allclose(warped(photo, flip=True), photo[:, ::-1], atol=1e-5)


def test_a_shift_moves_and_repeats_the_edge(photo):
    moved = warped(photo, shift_x=3.0)
    np.testing.assert_allclose(moved[:, :-3], photo[:, 3:], atol=1e-5)
    np.testing.assert_allclose(moved[:, -3:], np.repeat(photo[:, -1:], 3, 1), atol=1e-5)
    np.testing.assert_allclose(warped(photo, shift_y=-2.0)[2:], photo[:-2], atol=1e-5)


def test_a_quarter_turn_is_exact(photo):
    np.testing.assert_allclose(warped(photo, rotation=np.pi / 2), np.rot90(photo), atol=1e-4)


def test_zoom_and_shear_keep_the_centre_and_change_what_they_should():
    centre = (SIZE - 1) / 2
    for change in ({"zoom_x": 1.3}, {"zoom_y": 0.7}, {"shear": 0.3}, {"rotation": 0.5}):
        a0, a1, a2, b0, b1, b2 = transform(**change)[0, :6]
        assert a0 * centre + a1 * centre + a2 == pytest.approx(centre, abs=1e-4)
        assert b0 * centre + b1 * centre + b2 == pytest.approx(centre, abs=1e-4)
    assert transform(zoom_x=1.3)[0, 0] == pytest.approx(1.3)
    assert transform(shear=0.3)[0, 3] == pytest.approx(-np.sin(0.3))


@pytest.mark.parametrize("photo_index", range(4))
def test_the_graph_agrees_with_numpy_on_all_seven_together(photo, photo_index):
    matrix = draw_transforms(FULL, SIZE, 4, seed=1, epoch=0)[photo_index : photo_index + 1]
    np.testing.assert_allclose(warp(photo[None], matrix).numpy()[0], by_numpy(photo, matrix), atol=2e-3)


def test_draws_depend_on_seed_epoch_and_photo_alone():
    draws = draw_transforms(FULL, SIZE, 50, seed=7, epoch=3)
    np.testing.assert_array_equal(draws, draw_transforms(FULL, SIZE, 50, seed=7, epoch=3))
    np.testing.assert_array_equal(draws[:20], draw_transforms(FULL, SIZE, 20, seed=7, epoch=3))
    assert (draws != draw_transforms(FULL, SIZE, 50, seed=8, epoch=3)).any(1).all()
    assert (draws != draw_transforms(FULL, SIZE, 50, seed=7, epoch=4)).any(1).all()
    assert len(np.unique(draws, axis=0)) == 50


def test_ranges_are_kept_and_reached():
    shifts = draw_transforms(Augment(width_shift=0.25), SIZE, 2_000, seed=0, epoch=0)[:, 2]
    assert np.abs(shifts).max() <= 0.25 * SIZE + 1e-4
    assert np.abs(shifts).max() > 0.24 * SIZE
    flips = draw_transforms(Augment(horizontal_flip=True), SIZE, 2_000, seed=0, epoch=0)[:, 0] < 0
    assert 0.45 < flips.mean() < 0.55


def test_switching_one_off_leaves_the_others():
    alone = draw_transforms(Augment(width_shift=0.2), SIZE, 30, seed=0, epoch=0)[:, 2]
    beside = draw_transforms(Augment(width_shift=0.2, zoom=0.0, height_shift=0.1), SIZE, 30, seed=0, epoch=0)[:, 2]
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_rescaling_is_one_over_255():
    np.testing.assert_allclose(to_unit(np.array([0, 51, 255], np.uint8)).numpy(), [0, 0.2, 1], rtol=1e-6)
