"""Augmentation applied to a batch, in the graph: one warp, then colours, then a cutout."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pawcast.recipes.schema import Augmentation
from pawcast.vision.augment.sample import AugmentationParams

if TYPE_CHECKING:
    import tensorflow as tf

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's conversion to grey


def augment_batch(augment: Augmentation, pixels: tf.Tensor, draws: AugmentationParams, size: int) -> tf.Tensor:
    """Change photos as was drawn. What the ranges leave alone costs nothing.

    Args:
        augment: The ranges that the draws came from.
        pixels: uint8 [n, S, S, 3].
        draws: Of the same n photos.
        size: Height and width of the result.

    Returns:
        float32 [n, size, size, 3] in [0, 1].
    """
    pixels = warp(pixels, draws.transforms, size)
    if augment.brightness or augment.contrast or augment.saturation:
        pixels = jitter_colors(pixels, draws.color_factors)
    return cutout(pixels, draws.cutouts) if augment.cutout else pixels


def warp(pixels: tf.Tensor, transforms: tf.Tensor, size: int) -> tf.Tensor:
    """Resample each photo once, bilinearly, repeating the nearest edge pixel outside of it.

    On a GPU by TensorFlow's operation. On a CPU that computes every channel's place anew, pixel by pixel: 48 ms for 128
    photos of 150 px on two cores, where OpenCV takes 9 ms and rounds to whole levels.

    Args:
        pixels: uint8 [n, S, S, 3].
        transforms: float32 [n, 8], see `Draws`.
        size: Height and width of the result.

    Returns:
        float32 [n, size, size, 3] in [0, 1].
    """
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return _warp_by_tensorflow(pixels, transforms, size)
    warped = tf.numpy_function(functools.partial(_warp_by_opencv, size=size), [pixels, transforms], tf.uint8)
    return rescale(tf.ensure_shape(warped, [None, size, size, 3]))


def _warp_by_tensorflow(pixels: tf.Tensor, transforms: tf.Tensor, size: int) -> tf.Tensor:
    import tensorflow as tf

    return tf.raw_ops.ImageProjectiveTransformV3(
        images=rescale(pixels),
        transforms=transforms,
        output_shape=tf.constant([size, size]),
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


def _warp_by_opencv(pixels: np.ndarray, transforms: np.ndarray, size: int) -> np.ndarray:
    warped = np.empty((len(pixels), size, size, 3), np.uint8)
    for photo, transform, place in zip(pixels, transforms, warped, strict=True):
        cv2.warpAffine(
            photo, transform[:6].reshape(2, 3), (size, size), dst=place,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    return warped


def jitter_colors(pixels: tf.Tensor, color_factors: tf.Tensor) -> tf.Tensor:
    """Change saturation, then contrast about middle grey, then brightness.

    Args:
        pixels: float32 [n, S, S, 3] in [0, 1].
        color_factors: float32 [n, 3], see `Draws`.

    Returns:
        As `pixels`, clipped to [0, 1].
    """
    import tensorflow as tf

    brightness, contrast, saturation = (color_factors[:, i, None, None, None] for i in range(3))
    grey = tf.reduce_sum(pixels * tf.constant(_LUMA), axis=-1, keepdims=True)
    # contrast * (grey + saturation * (pixels - grey) - 1/2) + 1/2 + brightness, with few passes over the pixels.
    return tf.clip_by_value(
        pixels * (contrast * saturation) + (grey * (contrast * (1 - saturation)) + (brightness + (1 - contrast) / 2)),
        0.0,
        1.0,
    )


def cutout(pixels: tf.Tensor, holes: tf.Tensor) -> tf.Tensor:
    """Put a square of middle grey over each photo.

    Args:
        pixels: float32 [n, S, S, 3] in [0, 1].
        holes: float32 [n, 4], see `Draws`.
    """
    import tensorflow as tf

    size = tf.shape(pixels)[1]
    places = (tf.cast(tf.range(size), tf.float32) + 0.5) / tf.cast(size, tf.float32)
    across = (places >= holes[:, 0, None]) & (places < holes[:, 2, None])
    down = (places >= holes[:, 1, None]) & (places < holes[:, 3, None])
    return tf.where((down[:, :, None] & across[:, None, :])[..., None], 0.5, pixels)


def rescale(pixels: tf.Tensor) -> tf.Tensor:
    """Rescale uint8 [0, 255] of any shape to float32 [0, 1]: all the preprocessing there is, everywhere."""
    import tensorflow as tf

    return tf.cast(pixels, tf.float32) * (1 / 255)
