"""The training photos' random warp: drawn on the host as a pure function of (seed, epoch, photo), applied in the graph.

All of rotation, shifts, shear, zoom and flip is one affine map, so each photo is resampled once.
Importing this module does not import TensorFlow; `warp` and `to_unit` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pawcast.recipe import Augment

if TYPE_CHECKING:
    import tensorflow as tf


def draw_transforms(augment: Augment, size: int, photos: int, seed: int, epoch: int) -> np.ndarray:
    """Draw one epoch's warps, one for each photo of the training split.

    Row i depends on (seed, epoch, i) alone, never on batches, ranks or worker count, so a run on N workers
    and a resumed run see the very warps that one undisturbed worker sees.

    Args:
        augment: The ranges.
        size: Height and width of the photos in pixels.
        photos: Rows to draw.
        seed: The run's seed.
        epoch: Counted from 0.

    Returns:
        float32 [photos, 8]: the projective transform (a0, a1, a2, b0, b1, b2, 0, 0) that maps an output
        pixel (x, y) to the input pixel (a0 x + a1 y + a2, b0 x + b1 y + b2), as TensorFlow's
        `ImageProjectiveTransformV3` takes it.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(0, epoch))))
    # One row of seven numbers a photo; the same seven are drawn whatever the ranges, so that switching
    # one transform off leaves the others as they were.
    rotation, width, height, shear, zoom_x, zoom_y, flip = random.uniform(-1, 1, (photos, 7)).T
    return compose(
        size,
        rotation=np.deg2rad(augment.rotation) * rotation,
        shift_x=augment.width_shift * size * width,
        shift_y=augment.height_shift * size * height,
        shear=np.deg2rad(augment.shear) * shear,
        zoom_x=1 + augment.zoom * zoom_x,
        zoom_y=1 + augment.zoom * zoom_y,
        flip=augment.horizontal_flip & (flip < 0),
    )


def compose(
    size: int,
    *,
    rotation: np.ndarray,
    shift_x: np.ndarray,
    shift_y: np.ndarray,
    shear: np.ndarray,
    zoom_x: np.ndarray,
    zoom_y: np.ndarray,
    flip: np.ndarray,
) -> np.ndarray:
    """Compose rotation, shift, shear, zoom and mirror about the centre into one output-to-input map a photo.

    The order is that of Keras's `ImageDataGenerator`: rotation, then shift, then shear, then zoom, the flip
    last. Rotation, shift and zoom are its very matrices; the shear slants the photo's columns where Keras's
    slants its rows.

    Args:
        size: Height and width in pixels.
        rotation, shear: Radians, [n].
        shift_x, shift_y: Pixels, [n].
        zoom_x, zoom_y: Factors; above 1 shows more of the scene, [n].
        flip: Booleans; True mirrors left to right, [n].

    Returns:
        float32 [n, 8], as described in `draw_transforms`.
    """
    one, zero = np.ones_like(rotation), np.zeros_like(rotation)
    cos, sin = np.cos(rotation), np.sin(rotation)
    turn = _matrices([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])
    move = _matrices([[one, zero, shift_x], [zero, one, shift_y], [zero, zero, one]])
    slant = _matrices([[np.cos(shear), zero, zero], [-np.sin(shear), one, zero], [zero, zero, one]])
    scale = _matrices([[zoom_x, zero, zero], [zero, zoom_y, zero], [zero, zero, one]])
    mirror = _matrices([[np.where(flip, -1.0, 1.0), zero, zero], [zero, one, zero], [zero, zero, one]])
    centre = (size - 1) / 2
    to_centre = _matrices([[one, zero, one * centre], [zero, one, one * centre], [zero, zero, one]])
    from_centre = _matrices([[one, zero, -one * centre], [zero, one, -one * centre], [zero, zero, one]])
    whole = to_centre @ turn @ move @ slant @ scale @ mirror @ from_centre
    return whole.reshape(-1, 9)[:, :8].astype(np.float32)


def warp(pixels: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Resample each photo once, bilinearly, repeating the nearest edge pixel outside of it.

    Args:
        pixels: float32 [n, S, S, 3].
        transforms: float32 [n, 8] from `draw_transforms`.

    Returns:
        float32 [n, S, S, 3], within the range of `pixels`.
    """
    import tensorflow as tf

    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transforms,
        output_shape=tf.shape(pixels)[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


def to_unit(pixels: tf.Tensor) -> tf.Tensor:
    """Rescale uint8 [0, 255] of any shape to float32 [0, 1]: all the preprocessing there is, everywhere."""
    import tensorflow as tf

    return tf.cast(pixels, tf.float32) * (1 / 255)


def _matrices(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Stack [3][3] arrays of shape [n] into matrices of shape [n, 3, 3]."""
    return np.array(rows, dtype=np.float64).transpose(2, 0, 1)
