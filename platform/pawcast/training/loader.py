"""Which photo goes where in an epoch, and the batches made of it. Pure functions of the seed: no state to lose."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pawcast.recipes.schema import Recipe
from pawcast.vision import preprocess
from pawcast.vision.augment import sample
from pawcast.vision.augment.sample import AugmentationParams

AHEAD_OF_GPU = 4
"""Batches made at once beside a GPU: an H200 did a step of `fast` at 128 px in 29 ms, a thread its photos in 46."""


class Batch(NamedTuple):
    """One rank's slice of a global batch: m photos, where the ranks' m differ by one at most.

    Attributes:
        pixels: uint8 [m, S, S, 3].
        transforms, color_factors, holes: float32 [m, …], see `augment.Draws`.
        labels: float32 [m], 0 or 1.
        weights: float32 [m], 1 for a photo; 0 for the one that fills a slice which has none.
        photos: Photos in the global batch, over all ranks: float32 [].
        first: Which of them is the slice's first: int32 [].
    """

    pixels: np.ndarray
    transforms: np.ndarray
    color_factors: np.ndarray
    cutouts: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    photos: np.ndarray
    first: np.ndarray

    @property
    def draws(self) -> AugmentationParams:
        """What chance decided for these photos."""
        return AugmentationParams(self.transforms, self.color_factors, self.cutouts)


class BatchLoader:
    """Serves one rank's batches out of shared blocks of pixels.

    Args:
        blocks: uint8 [n_i, S, S, 3], mapped from the object store, never copied whole.
        labels: int64 [sum of n_i].
        recipe: Gives batch size, seed, sizes and augmentation.
        rank: This worker, from 0.
        world: How many workers.
        ahead: Batches that are made while one is in use, each on a thread of its own. One is enough where the same CPUs
            compute the network.
    """

    def __init__(
        self,
        blocks: Sequence[np.ndarray],
        labels: np.ndarray,
        recipe: Recipe,
        rank: int,
        world: int,
        ahead: int = 1,
    ) -> None:
        self._blocks = blocks
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])
        self._labels = labels.astype(np.float32)
        self._recipe = recipe
        self._rank, self._world, self._ahead = rank, world, ahead
        self._side = blocks[0].shape[1]
        self.photos = len(labels)
        self.steps = math.ceil(self.photos / recipe.batch_size)

    def training_batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's training batches in its order, each made while earlier ones are in use."""
        recipe = self._recipe
        to_size = recipe.size_at(epoch)
        # A crop of middling area is then sampled pixel by pixel: the warp looks at four pixels only, and would alias.
        from_size = min(self._side, round(to_size / math.sqrt((1 + recipe.augment.crop_area) / 2)))
        draws = sample.sample_params(recipe.augment, from_size, to_size, self.photos, recipe.seed, epoch)
        return self._batches(epoch_order(self.photos, recipe.seed, epoch), draws, from_size)

    def validation_batches(self, size: int) -> Iterator[Batch]:
        """Yield all photos once at a size, otherwise unchanged, as validation needs them."""
        return self._batches(np.arange(self.photos), sample.identity_params(size, size, self.photos), size)

    def _batches(self, order: np.ndarray, draws: AugmentationParams, size: int) -> Iterator[Batch]:
        with ThreadPoolExecutor(self._ahead, thread_name_prefix="feed") as pool:

            def make(step: int) -> Future[Batch]:
                return pool.submit(self._batch, order, draws, size, step)

            coming = deque(map(make, range(min(self._ahead, self.steps))))
            for step in range(self._ahead, self._ahead + self.steps):
                batch = coming.popleft().result()
                if step < self.steps:
                    coming.append(make(step))
                yield batch

    def _batch(self, order: np.ndarray, draws: AugmentationParams, size: int, step: int) -> Batch:
        whole = order[step * self._recipe.batch_size : (step + 1) * self._recipe.batch_size]
        first, last = (len(whole) * rank // self._world for rank in (self._rank, self._rank + 1))
        # A last batch of fewer photos than ranks leaves some with none; they take part with one that counts nothing.
        own = whole[first:last] if last > first else whole[:1]
        pixels = np.empty((len(own), size, size, 3), np.uint8)
        where = np.searchsorted(self._starts, own, side="right") - 1
        for i, (photo, block) in enumerate(zip(own, where, strict=True)):
            pixels[i] = preprocess.resize(self._blocks[block][photo - self._starts[block]], size)
        return Batch(
            pixels,
            *draws.rows(own),
            labels=self._labels[own],
            weights=np.full(len(own), float(last > first), np.float32),
            photos=np.array(len(whole), np.float32),
            first=np.array(min(first, len(whole) - 1), np.int32),
        )


def epoch_order(photos: int, seed: int, epoch: int) -> np.ndarray:
    """Return the epoch's permutation of the photos, int64 [photos]: the same on every rank and machine."""
    # A spawn key apart from the draws', which come from (seed, epoch) as well.
    sequence = np.random.SeedSequence(seed, spawn_key=(1, epoch))
    return np.random.Generator(np.random.Philox(sequence)).permutation(photos)
