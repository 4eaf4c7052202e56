"""The training photos' random changes: drawn as pure functions of (seed, epoch, photo), applied in the graph.

All of rotation, shifts, shear, zoom, flip, crop and scaling is one affine map, so each photo is resampled once. Then
its colours change, and a grey square hides a part of it. Importing this module does not import TensorFlow; its
functions of tensors do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pawcast.recipes.schema import Augmentation

if TYPE_CHECKING:
    pass

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's conversion to grey


class AugmentationParams(NamedTuple):
    """What chance decided for n photos, one row each.

    Attributes:
        transforms: float32 [n, 8]: the projective transform (a0, a1, a2, b0, b1, b2, 0, 0) that maps an output
            pixel (x, y) to the input pixel (a0 x + a1 y + a2, b0 x + b1 y + b2), as TensorFlow's
            `ImageProjectiveTransformV3` takes it.
        color_factors: float32 [n, 3]: brightness to add, and factors of contrast and of saturation.
        holes: float32 [n, 4]: left, top, right and bottom of the grey square, fractions of the sides.
    """

    transforms: np.ndarray
    color_factors: np.ndarray
    cutouts: np.ndarray

    def rows(self, photos: np.ndarray) -> AugmentationParams:
        """Return the rows of these photos."""
        return AugmentationParams(*(part[photos] for part in self))


def sample_params(
    augment: Augmentation, from_size: int, to_size: int, photos: int, seed: int, epoch: int
) -> AugmentationParams:
    """Draw one epoch's changes, for each photo of the training split.

    Row i depends on (seed, epoch, i) alone, never on batches, ranks or worker count, so a run on N workers
    and a resumed run see the very photos that one undisturbed worker sees.

    Args:
        augment: The ranges.
        from_size: Height and width of the photos in pixels.
        to_size: Height and width of what the network gets.
        photos: Rows to draw.
        seed: The run's seed.
        epoch: Counted from 0.
    """
    # The same numbers are drawn whatever the ranges, so that switching one change off leaves the others as they were.
    rotation, width, height, shear, zoom_x, zoom_y, flip = _uniform(seed, (0, epoch), (photos, 7)).T
    area, aspect, left, top, brightness, contrast, saturation, x, y = _uniform(seed, (3, epoch), (photos, 9)).T
    # Area and aspect ratio as in C. Szegedy et al., "Going deeper with convolutions" (2014), section 6.
    kept = 1 - (1 - augment.crop_area) * (area + 1) / 2
    ratio = np.exp(np.log(augment.crop_aspect) * aspect / 2)
    crop_x, crop_y = np.minimum(np.sqrt(kept) * ratio, 1), np.minimum(np.sqrt(kept) / ratio, 1)
    transforms = compose_affine(
        from_size,
        to_size,
        rotation=np.deg2rad(augment.rotation) * rotation,
        shift_x=augment.width_shift * from_size * width,
        shift_y=augment.height_shift * from_size * height,
        shear=np.deg2rad(augment.shear) * shear,
        zoom_x=1 + augment.zoom * zoom_x,
        zoom_y=1 + augment.zoom * zoom_y,
        flip=augment.horizontal_flip & (flip < 0),
        crop_x=crop_x,
        crop_y=crop_y,
        crop_left=left * (1 - crop_x) / 2 * from_size,
        crop_top=top * (1 - crop_y) / 2 * from_size,
    )
    color_factors = np.stack(
        [augment.brightness * brightness, 1 + augment.contrast * contrast, 1 + augment.saturation * saturation], axis=1
    )
    # The centre lies anywhere in the photo, so that some holes are cut by its edge (DeVries and Taylor, 2017,
    # https://arxiv.org/abs/1708.04552).
    centre, half = (np.stack([x, y], axis=1) + 1) / 2, augment.cutout / 2
    holes = np.concatenate([centre - half, centre + half], axis=1)
    return AugmentationParams(transforms, color_factors.astype(np.float32), holes.astype(np.float32))


def identity_params(from_size: int, to_size: int, photos: int) -> AugmentationParams:
    """Return draws that only scale the photos, as validation needs them."""
    return sample_params(Augmentation(), from_size, to_size, photos, seed=0, epoch=0)


def compose_affine(
    from_size: int,
    to_size: int,
    *,
    rotation: np.ndarray,
    shift_x: np.ndarray,
    shift_y: np.ndarray,
    shear: np.ndarray,
    zoom_x: np.ndarray,
    zoom_y: np.ndarray,
    flip: np.ndarray,
    crop_x: np.ndarray | float = 1.0,
    crop_y: np.ndarray | float = 1.0,
    crop_left: np.ndarray | float = 0.0,
    crop_top: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Compose crop, rotation, shift, shear, zoom and mirror about the centre into one output-to-input map a photo.

    Order and matrices are those of Keras's `ImageDataGenerator`: rotation, then shift, then shear, then zoom, the
    flip last. The crop comes before all of them.

    Args:
        from_size, to_size: Height and width in pixels, of the photo and of the result.
        rotation, shear: Radians, [n].
        shift_x, shift_y: Pixels of the photo, [n].
        zoom_x, zoom_y: Factors; above 1 shows more of the scene, [n].
        flip: Booleans; True mirrors left to right, [n].
        crop_x, crop_y: The part of each side that is kept, [n].
        crop_left, crop_top: The crop's distance from the photo's centre in its pixels, [n].

    Returns:
        float32 [n, 8], as `Draws.transforms`.
    """
    one, zero = np.ones_like(rotation), np.zeros_like(rotation)
    cos, sin = np.cos(rotation), np.sin(rotation)
    crop = _matrices([[one * crop_x, zero, one * crop_left], [zero, one * crop_y, one * crop_top], [zero, zero, one]])
    turn = _matrices([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])
    move = _matrices([[one, zero, shift_x], [zero, one, shift_y], [zero, zero, one]])
    slant = _matrices([[one, -np.sin(shear), zero], [zero, np.cos(shear), zero], [zero, zero, one]])
    scale = _matrices([[zoom_x, zero, zero], [zero, zoom_y, zero], [zero, zero, one]])
    mirror = _matrices([[np.where(flip, -1.0, 1.0), zero, zero], [zero, one, zero], [zero, zero, one]])
    ratio = one * from_size / to_size
    resize = _matrices([[ratio, zero, zero], [zero, ratio, zero], [zero, zero, one]])
    to_centre, from_centre = _shift((from_size - 1) / 2, one), _shift(-(to_size - 1) / 2, one)
    whole = to_centre @ crop @ turn @ move @ slant @ scale @ mirror @ resize @ from_centre
    return whole.reshape(-1, 9)[:, :8].astype(np.float32)


def _uniform(seed: int, key: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.Philox(sequence)).uniform(-1, 1, shape)


def _shift(by: float, one: np.ndarray) -> np.ndarray:
    zero = np.zeros_like(one)
    return _matrices([[one, zero, one * by], [zero, one, one * by], [zero, zero, one]])


def _matrices(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Stack [3][3] arrays of shape [n] into matrices of shape [n, 3, 3]."""
    return np.array(rows, dtype=np.float64).transpose(2, 0, 1)
