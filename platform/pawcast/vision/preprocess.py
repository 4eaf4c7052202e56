"""Decoded photos to the pixels a network takes: the same in training, evaluation and serving."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from pawcast.core.records import Record
from pawcast.vision.decode import decode


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize a photo to a square, without keeping its aspect ratio.

    Bilinear, which takes a fifth of the time of averaging areas. Where a side shrinks by more than
    half, bilinear sampling would skip pixels, so areas are averaged instead.

    Args:
        pixels: uint8 [height, width, 3].
        size: The new height and width in pixels.

    Returns:
        uint8 [size, size, 3]; `pixels` itself if it has that size already.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    method = cv2.INTER_AREA if max(height, width) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size, size), interpolation=method)


def load_image(data: bytes, size: int) -> np.ndarray:
    """Decode and resize one photo: uint8 [size, size, 3]. Raises `ImageError`."""
    return resize(decode(data), size)


class Preprocessing(Record):
    """How a photo becomes a network's input. Saved with each model version.

    `apply` gives uint8 pixels. The model multiplies them by `scale`.

    Attributes:
        image_size: Height and width of the input, in pixels.
        eval_downscale: If set, photos are first reduced to this many pixels a side, so that they
            are no sharper than training's enlarged crops.
        resize: The method of `vision.preprocess.resize`.
        scale: Factor from uint8 to the network's range.
        mirror: Predict the photo and its mirror image, and average the two probabilities.
    """

    image_size: int
    eval_downscale: int | None = None
    resize: Literal["bilinear_area"] = "bilinear_area"
    scale: float = 1 / 255
    mirror: bool = False

    def apply(self, photo: bytes | np.ndarray) -> np.ndarray:
        """Return a photo as the network takes it: uint8 [image_size, image_size, 3].

        Args:
            photo: A file's bytes, or uint8 [height, width, 3].

        Raises:
            ImageError: For a file that can't be decoded.
        """
        pixels = decode(photo) if isinstance(photo, bytes) else photo
        if self.eval_downscale:
            pixels = resize(pixels, self.eval_downscale)
        return resize(pixels, self.image_size)
