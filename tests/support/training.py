"""Small networks, optimizers and loaders for tests of training."""

from __future__ import annotations

import numpy as np

from pawcast.recipes import resolve
from pawcast.training.loader import Batch, BatchLoader


def numbered_loader(photos: int, batch: int, rank: int = 0, world: int = 1, ahead: int = 1) -> BatchLoader:
    """Return a loader of photos in uneven blocks; the first pixel of each holds its number."""
    pixels = np.zeros((photos, 32, 32, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(photos) % 256, np.arange(photos) // 256
    blocks = np.split(pixels, sorted({photos // 3, photos // 2}))
    recipe = resolve("article", [f"batch_size={batch}", "image_size=32"])
    return BatchLoader(blocks, np.arange(photos) % 2, recipe, rank, world, ahead)


def photo_numbers(batch: Batch) -> list[int]:
    """Return the numbers of a batch's photos, without one that only fills the slice."""
    own = batch.weights > 0
    return (batch.pixels[own, 0, 0, 0].astype(int) + 256 * batch.pixels[own, 0, 0, 1].astype(int)).tolist()


def network_and_optimizer(recipe: str = "smoke", *settings: str):
    """Return a recipe's untrained network and its optimizer."""
    from pawcast.runtime.tensorflow import configure_tensorflow

    configure_tensorflow(1)
    from pawcast.models import build
    from pawcast.training import optimizers

    config = resolve(recipe, list(settings))
    network = build.build_model(config, "bfloat16" if config.precision == "bfloat16" else "float32")
    return network, optimizers.build_optimizer(config, network)
