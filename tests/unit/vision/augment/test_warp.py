"""Warp, colours and cutout, checked against plain NumPy and against themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pawcast.recipes.schema import Augmentation
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.augment import warp as warp_module
from pawcast.vision.augment.sample import (
    AffineParams,
    AugmentationParams,
    compose_affine,
    identity_params,
    sample_params,
)
from pawcast.vision.augment.warp import augment_batch, cutout, jitter_colors, rescale

SIZE = 24
ALL_WARPS = Augmentation(rotation=30, width_shift=0.2, height_shift=0.1, shear=10, zoom=0.3, horizontal_flip=True)

Warp = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure_tensorflow(1)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture(params=["gpu", "cpu"])
def warp(request) -> Warp:
    """The implementation of a GPU or a CPU: float32 [n, size, size, 3], levels from 0 to 255."""
    function = warp_module._warp_with_tensorflow if request.param == "gpu" else warp_module.warp
    return lambda pixels, transforms, size: function(pixels, transforms, size).numpy() * 255


def compose(**change: float) -> np.ndarray:
    return compose_affine(AffineParams(**change), SIZE, SIZE)


def sample_transforms(photos: int, seed: int) -> np.ndarray:
    return sample_params(ALL_WARPS, SIZE, SIZE, photos, seed, epoch=0).transforms


def warp_with_numpy(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear resampling with the nearest edge pixels, pixel by pixel: slow, and plainly right."""
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


def test_the_identity_keeps_the_photo_and_a_flip_mirrors_it(photo, warp):
    np.testing.assert_allclose(warp(photo[None], compose(), SIZE)[0], photo, atol=1e-3)
    np.testing.assert_allclose(warp(photo[None], compose(flip=True), SIZE)[0], photo[:, ::-1], atol=1e-3)


def test_a_shift_moves_the_photo_and_repeats_its_edge(photo, warp):
    moved = warp(photo[None], compose(shift_x=3.0), SIZE)[0]
    np.testing.assert_allclose(moved[:, :-3], photo[:, 3:], atol=1e-3)
    np.testing.assert_allclose(moved[:, -3:], np.repeat(photo[:, -1:], 3, 1), atol=1e-3)
    np.testing.assert_allclose(warp(photo[None], compose(shift_y=-2.0), SIZE)[0, 2:], photo[:-2], atol=1e-3)


def test_a_quarter_turn_is_exact(photo, warp):
    np.testing.assert_allclose(warp(photo[None], compose(rotation=np.pi / 2), SIZE)[0], np.rot90(photo), atol=0.02)


@pytest.mark.parametrize("photo_index", range(4))
def test_the_warp_agrees_with_numpy_on_all_changes_together(photo, warp, photo_index):
    matrix = sample_transforms(4, seed=1)[photo_index : photo_index + 1]
    # On a CPU the result is rounded to whole levels.
    np.testing.assert_allclose(warp(photo[None], matrix, SIZE)[0], warp_with_numpy(photo, matrix), atol=0.55)


def test_each_photo_has_its_own_warp(photo, warp):
    both = np.stack([photo, photo[::-1]])
    matrices = sample_transforms(2, seed=2)
    alone = [warp(both[i : i + 1], matrices[i : i + 1], SIZE)[0] for i in range(2)]
    np.testing.assert_array_equal(warp(both, matrices, SIZE), alone)


def test_resizing_keeps_edges_where_they_are(warp):
    ramp = np.broadcast_to((np.arange(48, dtype=np.uint8) * 4 + 2)[:, None], (1, 48, 48, 3))
    half = warp(ramp, identity_params(48, 24, 1).transforms, 24)
    assert half.shape == (1, 24, 24, 3)
    np.testing.assert_allclose(half[0, 0, :, 0], np.arange(24) * 8 + 4, atol=1e-3)


def test_colors_follow_the_formula(photo):
    pixels = rescale(photo).numpy()
    brightness, contrast, saturation = 0.1, 1.2, 0.7
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    expected = grey[..., None] + saturation * (pixels - grey[..., None])
    expected = np.clip(contrast * (expected - 0.5) + 0.5 + brightness, 0, 1)
    jittered = jitter_colors(pixels[None], np.array([[brightness, contrast, saturation]], np.float32)).numpy()[0]
    np.testing.assert_allclose(jittered, expected, atol=1e-5)
    assert 0 < (expected == 1).mean() < 0.5


def test_a_cutout_hides_its_square_and_nothing_else(photo):
    pixels = rescale(photo).numpy()
    result = cutout(pixels[None], np.array([[0.25, 0.5, 0.75, 1.2]], np.float32)).numpy()[0]
    expected = pixels.copy()
    expected[12:, 6:18] = 0.5
    np.testing.assert_array_equal(result, expected)


def test_changes_whose_range_is_zero_are_not_applied(photo):
    params = sample_params(Augmentation(), SIZE, SIZE, 1, seed=3, epoch=1)
    np.testing.assert_allclose(augment_batch(Augmentation(), photo[None], params, SIZE)[0], rescale(photo), atol=1e-5)
    strong = AugmentationParams(
        params.transforms, np.array([[0.5, 2, 0]], np.float32), np.array([[0, 0, 1, 1]], np.float32)
    )
    np.testing.assert_allclose(augment_batch(Augmentation(), photo[None], strong, SIZE)[0], rescale(photo), atol=1e-5)
    changed = augment_batch(Augmentation(brightness=0.1, cutout=0.5), photo[None], strong, SIZE).numpy()[0]
    assert (changed == 0.5).all()


def test_rescaling_multiplies_by_one_over_255():
    np.testing.assert_allclose(rescale(np.array([0, 51, 255], np.uint8)).numpy(), [0, 0.2, 1], rtol=1e-6)
