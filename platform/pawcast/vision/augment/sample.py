"""Random changes of the training photos, drawn as pure functions of (seed, epoch, photo).

Rotation, shifts, shear, zoom, flip, crop and scaling make one affine map, so each photo is
resampled only once. `warp.py` applies the changes; this module does not import TensorFlow.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from pawcast.recipes.schema import Augmentation


class AugmentationParams(NamedTuple):
    """The sampled changes of n photos, one row each.

    Attributes:
        transforms: float32 [n, 8]: the projective transform (a0, a1, a2, b0, b1, b2, 0, 0) that
            maps an output pixel (x, y) to the input pixel (a0 x + a1 y + a2, b0 x + b1 y + b2), as
            TensorFlow's `ImageProjectiveTransformV3` takes it.
        color_factors: float32 [n, 3]: brightness to add, and factors of contrast and of saturation.
        cutouts: float32 [n, 4]: left, top, right and bottom of the gray square, as fractions of the
            sides.
    """

    transforms: np.ndarray
    color_factors: np.ndarray
    cutouts: np.ndarray

    def rows(self, photos: np.ndarray) -> AugmentationParams:
        """Return the rows of these photos, given by int [m] indices."""
        return AugmentationParams(*(field[photos] for field in self))


class AffineParams(NamedTuple):
    """What `compose_affine` composes, each a number or an array [n]. The defaults change nothing.

    Attributes:
        rotation, shear: Radians.
        shift_x, shift_y: Pixels of the photo.
        zoom_x, zoom_y: Factors; above 1 shows more of the scene.
        flip: True mirrors left to right.
        crop_x, crop_y: The part of each side that is kept, in (0, 1].
        crop_left, crop_top: From the photo's centre to the crop's, in pixels of the photo.
    """

    rotation: np.ndarray | float = 0.0
    shift_x: np.ndarray | float = 0.0
    shift_y: np.ndarray | float = 0.0
    shear: np.ndarray | float = 0.0
    zoom_x: np.ndarray | float = 1.0
    zoom_y: np.ndarray | float = 1.0
    flip: np.ndarray | bool = False
    crop_x: np.ndarray | float = 1.0
    crop_y: np.ndarray | float = 1.0
    crop_left: np.ndarray | float = 0.0
    crop_top: np.ndarray | float = 0.0


def sample_params(
    augmentation: Augmentation, from_size: int, to_size: int, photos: int, seed: int, epoch: int
) -> AugmentationParams:
    """Sample one epoch's changes of each training photo.

    Row i depends on (seed, epoch, i) alone, never on batches, ranks or worker count. So a run on N
    workers, and a resumed run, see the same photos as one undisturbed worker.

    Args:
        augmentation: The ranges.
        from_size: Height and width of the photos in pixels.
        to_size: Height and width of the network's input in pixels.
        photos: Rows to sample.
        seed: The run's seed.
        epoch: Counted from 0.
    """
    # The same numbers are drawn whatever the ranges are: switching one change off leaves the others
    # as they were.
    rotation, width, height, shear, zoom_x, zoom_y, flip = _uniform(seed, (0, epoch), (photos, 7)).T
    area, aspect, left, top, brightness, contrast, saturation, x, y = _uniform(seed, (3, epoch), (photos, 9)).T
    # Area and aspect ratio as in C. Szegedy et al., "Going deeper with convolutions" (2014),
    # section 6.
    kept_area = 1 - (1 - augmentation.crop_area) * (area + 1) / 2
    ratio = np.exp(np.log(augmentation.crop_aspect) * aspect / 2)
    crop_x, crop_y = np.minimum(np.sqrt(kept_area) * ratio, 1), np.minimum(np.sqrt(kept_area) / ratio, 1)
    affine = AffineParams(
        rotation=np.deg2rad(augmentation.rotation) * rotation,
        shift_x=augmentation.width_shift * from_size * width,
        shift_y=augmentation.height_shift * from_size * height,
        shear=np.deg2rad(augmentation.shear) * shear,
        zoom_x=1 + augmentation.zoom * zoom_x,
        zoom_y=1 + augmentation.zoom * zoom_y,
        flip=augmentation.horizontal_flip & (flip < 0),
        crop_x=crop_x,
        crop_y=crop_y,
        crop_left=left * (1 - crop_x) / 2 * from_size,
        crop_top=top * (1 - crop_y) / 2 * from_size,
    )
    factors = (1 + augmentation.contrast * contrast, 1 + augmentation.saturation * saturation)
    color_factors = np.column_stack([augmentation.brightness * brightness, *factors])
    # The centre lies anywhere in the photo, so its edge cuts some squares (T. DeVries and
    # G. Taylor, 2017, https://arxiv.org/abs/1708.04552).
    centre, half = (np.column_stack([x, y]) + 1) / 2, augmentation.cutout / 2
    cutouts = np.column_stack([centre - half, centre + half])
    transforms = compose_affine(affine, from_size, to_size)
    return AugmentationParams(transforms, color_factors.astype(np.float32), cutouts.astype(np.float32))


def identity_params(from_size: int, to_size: int, photos: int) -> AugmentationParams:
    """Return parameters that only resize the photos, as validation needs them."""
    return sample_params(Augmentation(), from_size, to_size, photos, seed=0, epoch=0)


def compose_affine(params: AffineParams, from_size: int, to_size: int) -> np.ndarray:
    """Compose all changes about the photo's centre into one map from output to input pixels.

    Order and matrices are those of Keras's `ImageDataGenerator`: rotation, then shift, then shear,
    then zoom, the flip last. The crop comes before all of them.

    Args:
        params: Numbers or arrays [n].
        from_size: Height and width of the photo in pixels.
        to_size: Height and width of the result in pixels.

    Returns:
        float32 [n, 8], as `AugmentationParams.transforms`; n is 1 if all parameters are numbers.
    """
    p, ratio = params, from_size / to_size
    input_centre, output_centre = (from_size - 1) / 2, (to_size - 1) / 2
    cos, sin = np.cos(p.rotation), np.sin(p.rotation)
    matrices = (
        _matrices(1, 0, input_centre, 0, 1, input_centre),
        _matrices(p.crop_x, 0, p.crop_left, 0, p.crop_y, p.crop_top),
        _matrices(cos, -sin, 0, sin, cos, 0),
        _matrices(1, 0, p.shift_x, 0, 1, p.shift_y),
        _matrices(1, -np.sin(p.shear), 0, 0, np.cos(p.shear), 0),
        _matrices(p.zoom_x, 0, 0, 0, p.zoom_y, 0),
        _matrices(np.where(p.flip, -1, 1), 0, 0, 0, 1, 0),
        _matrices(ratio, 0, 0, 0, ratio, 0),
        _matrices(1, 0, -output_centre, 0, 1, -output_centre),
    )
    product = functools.reduce(np.matmul, matrices)
    return product.reshape(-1, 9)[:, :8].astype(np.float32)


def _uniform(seed: int, key: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.Philox(sequence)).uniform(-1, 1, shape)


def _matrices(*entries: np.ndarray | float) -> np.ndarray:
    """Return float64 [n, 3, 3] of two rows of numbers or arrays [n]; the last row is (0, 0, 1)."""
    return np.stack(np.broadcast_arrays(*entries, 0.0, 0.0, 1.0), axis=-1).reshape(-1, 3, 3)
