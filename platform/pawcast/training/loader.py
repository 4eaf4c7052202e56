"""Batches of decoded photos. Their order and augmentation are pure functions of (seed, epoch)."""

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

# Beside a GPU: an H200 did a step of `fast` at 128 px in 29 ms, and a thread gathered its photos in
# 46 ms.
BATCHES_AHEAD_OF_GPU = 4


class Batch(NamedTuple):
    """One rank's slice of a global batch: m photos, where m differs by at most 1 between ranks.

    Attributes:
        pixels: uint8 [m, S, S, 3].
        augmentation: How each photo is changed.
        labels: float32 [m], 0 or 1.
        weights: float32 [m]: 1, or 0 for a photo that only fills an otherwise empty slice.
        photos: float32 []: photos in the global batch, over all ranks.
        first: int32 []: index of the slice's first photo in the global batch.
    """

    pixels: np.ndarray
    augmentation: AugmentationParams
    labels: np.ndarray
    weights: np.ndarray
    photos: np.ndarray
    first: np.ndarray


class BatchLoader:
    """Makes one rank's batches from shared blocks of pixels.

    Args:
        blocks: uint8 [n_i, S, S, 3], mapped from the object store and never copied whole.
        labels: int64 [sum of n_i].
        recipe: Gives batch size, seed, image sizes and augmentation.
        rank: This worker, from 0.
        world: How many workers there are.
        batches_ahead: Batches that are made while one is in use, each on its own thread. One is
            enough where the network is computed on the same CPUs.

    Attributes:
        photos: Photos of the split.
        steps: Batches in an epoch.
    """

    def __init__(
        self,
        blocks: Sequence[np.ndarray],
        labels: np.ndarray,
        recipe: Recipe,
        rank: int,
        world: int,
        batches_ahead: int = 1,
    ) -> None:
        self._blocks = blocks
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])
        self._labels = labels.astype(np.float32)
        self._recipe = recipe
        self._rank, self._world, self._batches_ahead = rank, world, batches_ahead
        self._stored_size = blocks[0].shape[1]
        self.photos = len(labels)
        self.steps = math.ceil(self.photos / recipe.batch_size)

    def training_batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches in its random order, with augmentation parameters."""
        recipe = self._recipe
        to_size = recipe.size_at(epoch)
        # Photos are first reduced so that a crop of average area has about `to_size` pixels a side:
        # the warp looks at four pixels only and would alias larger ones.
        from_size = min(self._stored_size, round(to_size / math.sqrt((1 + recipe.augment.crop_area) / 2)))
        params = sample.sample_params(recipe.augment, from_size, to_size, self.photos, recipe.seed, epoch)
        return self._batches(epoch_order(self.photos, recipe.seed, epoch), params, from_size)

    def validation_batches(self, size: int) -> Iterator[Batch]:
        """Yield all photos once, in their stored order, resized to a height and width."""
        return self._batches(np.arange(self.photos), sample.identity_params(size, size, self.photos), size)

    def _batches(self, order: np.ndarray, params: AugmentationParams, size: int) -> Iterator[Batch]:
        with ThreadPoolExecutor(self._batches_ahead, thread_name_prefix="loader") as pool:

            def submit(step: int) -> Future[Batch]:
                return pool.submit(self._batch, order, params, size, step)

            pending = deque(map(submit, range(min(self._batches_ahead, self.steps))))
            for following in range(self._batches_ahead, self._batches_ahead + self.steps):
                batch = pending.popleft().result()
                if following < self.steps:
                    pending.append(submit(following))
                yield batch

    def _batch(self, order: np.ndarray, params: AugmentationParams, size: int, step: int) -> Batch:
        batch = order[step * self._recipe.batch_size : (step + 1) * self._recipe.batch_size]
        first, last = (len(batch) * rank // self._world for rank in (self._rank, self._rank + 1))
        # A last batch of fewer photos than ranks leaves some ranks without any. They take part with
        # one photo of weight 0.
        own = batch[first:last] if last > first else batch[:1]
        pixels = np.empty((len(own), size, size, 3), np.uint8)
        block_of = np.searchsorted(self._starts, own, side="right") - 1
        for i, (photo, block) in enumerate(zip(own, block_of, strict=True)):
            pixels[i] = preprocess.resize(self._blocks[block][photo - self._starts[block]], size)
        return Batch(
            pixels,
            params.rows(own),
            labels=self._labels[own],
            weights=np.full(len(own), float(last > first), np.float32),
            photos=np.array(len(batch), np.float32),
            first=np.array(min(first, len(batch) - 1), np.int32),
        )


def epoch_order(photos: int, seed: int, epoch: int) -> np.ndarray:
    """Return the epoch's permutation of the photos, int64 [photos]: the same on every rank."""
    # The spawn key differs from those of augmentation, which is drawn from (seed, epoch) as well.
    sequence = np.random.SeedSequence(seed, spawn_key=(1, epoch))
    return np.random.Generator(np.random.Philox(sequence)).permutation(photos)
