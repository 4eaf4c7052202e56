"""Which photo goes where in an epoch, and the batches made of it. Pure functions of the seed: no state to lose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pawcast.augment import draw_transforms
from pawcast.recipe import Recipe


class Batch(NamedTuple):
    """One rank's slice of a global batch, padded to the same size on every rank and in every step.

    Attributes:
        pixels: uint8 [m, S, S, 3].
        transforms: float32 [m, 8], see `augment`.
        labels: float32 [m], 0 or 1.
        weights: float32 [m], 1 for a photo and 0 for padding.
        photos: Photos in the global batch, over all ranks: float32 [].
    """

    pixels: np.ndarray
    transforms: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    photos: np.ndarray


class Feed:
    """Serves one rank's batches out of shared blocks of pixels.

    Args:
        blocks: uint8 [n_i, S, S, 3], mapped from the object store, never copied whole.
        labels: int64 [sum of n_i].
        recipe: Gives batch size, seed, image size and augmentation.
        rank: This worker, from 0.
        world: How many workers.
    """

    def __init__(self, blocks: Sequence[np.ndarray], labels: np.ndarray, recipe: Recipe, rank: int, world: int) -> None:
        self._blocks = blocks
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])
        self._labels = labels.astype(np.float32)
        self._recipe = recipe
        self._rank, self._world = rank, world
        self.photos = len(labels)
        self.steps = math.ceil(self.photos / recipe.batch_size)
        self._share = math.ceil(min(recipe.batch_size, self.photos) / world)

    def shuffled(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's training batches in its order, each made while the last one is in use."""
        order = epoch_order(self.photos, self._recipe.seed, epoch)
        transforms = draw_transforms(
            self._recipe.augment, self._recipe.image_size, self.photos, self._recipe.seed, epoch
        )
        return self._batches(order, transforms)

    def in_order(self) -> Iterator[Batch]:
        """Yield all photos once, unchanged, as validation needs them."""
        return self._batches(np.arange(self.photos), np.zeros((self.photos, 8), np.float32))

    def _batches(self, order: np.ndarray, transforms: np.ndarray) -> Iterator[Batch]:
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as ahead:
            coming = ahead.submit(self._batch, order, transforms, 0)
            for step in range(self.steps):
                batch = coming.result()
                if step + 1 < self.steps:
                    coming = ahead.submit(self._batch, order, transforms, step + 1)
                yield batch

    def _batch(self, order: np.ndarray, transforms: np.ndarray, step: int) -> Batch:
        size = self._recipe.batch_size
        whole = order[step * size : (step + 1) * size]
        # Contiguous slices. The last batch may leave a rank with fewer photos or none; it still takes part.
        own = whole[self._rank * self._share : (self._rank + 1) * self._share]
        side = self._recipe.image_size
        batch = Batch(
            pixels=np.zeros((self._share, side, side, 3), np.uint8),
            transforms=np.zeros((self._share, 8), np.float32),
            labels=np.zeros(self._share, np.float32),
            weights=np.zeros(self._share, np.float32),
            photos=np.array(len(whole), np.float32),
        )
        where = np.searchsorted(self._starts, own, side="right") - 1
        for i, (photo, block) in enumerate(zip(own, where, strict=True)):
            batch.pixels[i] = self._blocks[block][photo - self._starts[block]]
        batch.transforms[: len(own)] = transforms[own]
        batch.labels[: len(own)] = self._labels[own]
        batch.weights[: len(own)] = 1
        return batch


def epoch_order(photos: int, seed: int, epoch: int) -> np.ndarray:
    """Return the epoch's permutation of the photos, int64 [photos]: the same on every rank and machine."""
    # A spawn key apart from the transforms', which are drawn from (seed, epoch) as well.
    sequence = np.random.SeedSequence(seed, spawn_key=(1, epoch))
    return np.random.Generator(np.random.Philox(sequence)).permutation(photos)
