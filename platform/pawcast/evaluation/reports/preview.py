"""Augmentation of one photo as a PNG: each change alone at the end of its range, then all."""

from __future__ import annotations

import numpy as np

from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.recipes.schema import Augmentation
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.augment.sample import (
    AffineParams,
    AugmentationParams,
    compose_affine,
    identity_params,
    sample_params,
)
from pawcast.vision.augment.warp import augment_batch

_SAMPLES = 16
_ONE_CHANGE = "Each change alone, at the end of its range; outside of the photo its nearest pixels repeat"


def draw_preview(pixels: np.ndarray, augmentation: Augmentation, name: str, seed: int = 0) -> bytes:
    """Draw one photo and its augmented versions.

    Args:
        pixels: uint8 [S, S, 3].
        augmentation: The recipe's ranges.
        name: The photo's, for the title.
        seed: Of the random versions. The recipe's seed gives those of the first photo in epoch 0.

    Returns:
        A PNG.
    """
    size = len(pixels)
    captions, changes = _single_changes(augmentation, size)
    samples = sample_params(augmentation, size, size, _SAMPLES, seed, epoch=0)
    params = AugmentationParams(*(np.concatenate(fields) for fields in zip(changes, samples, strict=True)))
    configure_tensorflow()
    batch = np.repeat(pixels[None], len(params.transforms), axis=0)
    photos = np.rint(augment_batch(augmentation, batch, params, size).numpy() * 255).astype(np.uint8)
    single = [Tile(photo, *caption) for photo, caption in zip(photos[: len(captions)], captions, strict=True)]
    sampled = [Tile(photo, f"sample {i}") for i, photo in enumerate(photos[len(captions) :], start=1)]
    return draw_contact_sheet(
        [
            (_ONE_CHANGE, [Tile(pixels, "the photo", f"{size} × {size}"), *single]),
            (f"All changes, as training samples them with seed {seed}", sampled),
        ],
        f"Augmentation of {name}",
    )


def _single_changes(augmentation: Augmentation, size: int) -> tuple[list[tuple[str, str]], AugmentationParams]:
    """Return a caption and a note for each change, and the parameters at the end of its range."""
    near, far = 1 - augmentation.zoom, 1 + augmentation.zoom
    shift_x, shift_y, crop_side = augmentation.width_shift, augmentation.height_shift, augmentation.crop_area**0.5
    warps = [
        ("rotation", f"±{augmentation.rotation:g}°", AffineParams(rotation=np.deg2rad(augmentation.rotation))),
        ("width shift", f"±{shift_x:g} of the width", AffineParams(shift_x=shift_x * size)),
        ("height shift", f"±{shift_y:g} of the height", AffineParams(shift_y=shift_y * size)),
        ("shear", f"±{augmentation.shear:g}°", AffineParams(shear=np.deg2rad(augmentation.shear))),
        ("zoom in", f"shows {near:g} of each side", AffineParams(zoom_x=near, zoom_y=near)),
        ("zoom out", f"shows {far:g} of each side", AffineParams(zoom_x=far, zoom_y=far)),
        ("horizontal flip", "half of the photos", AffineParams(flip=augmentation.horizontal_flip)),
        ("crop", f"{augmentation.crop_area:g} of the area or more", AffineParams(crop_x=crop_side, crop_y=crop_side)),
    ]
    colors = [
        ("brightness", f"±{augmentation.brightness:g}", (augmentation.brightness, 1, 1)),
        ("contrast", f"± {augmentation.contrast:.0%}", (0, 1 + augmentation.contrast, 1)),
        ("saturation", f"± {augmentation.saturation:.0%}", (0, 1, 1 + augmentation.saturation)),
    ]
    captions = [
        *((caption, note if params != AffineParams() else "off") for caption, note, params in warps),
        *((caption, note if factors != (0, 1, 1) else "off") for caption, note, factors in colors),
        ("cutout", f"{augmentation.cutout:g} of each side" if augmentation.cutout else "off"),
    ]
    changes = identity_params(size, size, len(captions))
    changes.transforms[: len(warps)] = [compose_affine(params, size, size)[0] for *_, params in warps]
    changes.color_factors[len(warps) : -1] = [factors for *_, factors in colors]
    changes.cutouts[:-1] = 0  # a square of no width
    edge = (1 - augmentation.cutout) / 2
    changes.cutouts[-1] = [edge, edge, 1 - edge, 1 - edge]
    return captions, changes
