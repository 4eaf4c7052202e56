"""Augmentation of one photo as a PNG: each change alone, then all of them."""

from __future__ import annotations

import numpy as np

from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.recipes.schema import Augmentation
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.augment.sample import sample_params
from pawcast.vision.augment.warp import augment_batch

_SAMPLES = 16


def draw_preview(pixels: np.ndarray, augmentation: Augmentation, name: str, seed: int = 0) -> bytes:
    """Draw one photo and its augmented versions. Changes that are off aren't shown.

    Args:
        pixels: uint8 [S, S, 3].
        augmentation: The recipe's ranges.
        name: The photo's, for the title.
        seed: Of the random versions. The recipe's seed gives those of the first photo in epoch 0.

    Returns:
        A PNG.
    """
    configure_tensorflow()
    alone = [Tile(pixels, "the photo", f"{len(pixels)} × {len(pixels)}")]
    for field, value in augmentation:
        if value != getattr(Augmentation(), field):
            samples = _augment(pixels, Augmentation(**{field: value}), seed)
            strongest = np.abs(samples - pixels.astype(float)).mean((1, 2, 3)).argmax()
            alone.append(Tile(samples[strongest], field.replace("_", " "), f"{field}={value}"))
    together = [Tile(photo, f"sample {i}") for i, photo in enumerate(_augment(pixels, augmentation, seed), start=1)]
    sections = [
        (f"Each change alone, the strongest of {_SAMPLES} samples", alone),
        (f"All changes, as training samples them with seed {seed}", together),
    ]
    return draw_contact_sheet(sections, f"Augmentation of {name}")


def _augment(pixels: np.ndarray, augmentation: Augmentation, seed: int) -> np.ndarray:
    """Return samples of an augmented photo: uint8 [_SAMPLES, S, S, 3]."""
    params = sample_params(augmentation, len(pixels), len(pixels), _SAMPLES, seed, epoch=0)
    batch = np.repeat(pixels[None], _SAMPLES, axis=0)
    return np.rint(augment_batch(augmentation, batch, params, len(pixels)).numpy() * 255).astype(np.uint8)
