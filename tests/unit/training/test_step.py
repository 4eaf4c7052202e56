"""The training step on one rank."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import tf
from pawcast.training.collective import Collective
from pawcast.training.step import TrainStep
from tests.support.training import network_and_optimizer, numbered_loader

SETTINGS = ("image_size=32", "batch_size=16", "dropout=0")


def make_step(*settings: str):
    network, optimizer = network_and_optimizer("smoke", *SETTINGS, *settings)
    return network, TrainStep(resolve("smoke", [*SETTINGS, *settings]), network, optimizer, Collective(0, 1))


def test_a_photo_of_weight_0_changes_no_sum():
    _, step = make_step()
    batch = next(numbered_loader(16, 16).validation_batches(32))
    sums = step.validate([batch], 32)
    weights = batch.weights.copy()
    weights[5:] = 0
    first_five = tf.nest.map_structure(lambda part: part[:5] if part.ndim else part, batch)
    assert sums.photos == 16
    for got, expected in zip(
        step.validate([batch._replace(weights=weights)], 32), step.validate([first_five], 32), strict=True
    ):
        assert got == pytest.approx(expected, rel=1e-6)


def test_validation_with_mirror_images_scores_a_photo_and_its_mirror_image_alike():
    _, step = make_step()
    batch = next(numbered_loader(16, 16).validation_batches(32))
    rng = np.random.default_rng(0)
    batch = batch._replace(pixels=rng.integers(0, 256, batch.pixels.shape, np.uint8))
    flipped = batch._replace(pixels=batch.pixels[:, :, ::-1].copy())
    assert step.validate([batch], 32).loss != step.validate([flipped], 32).loss
    assert step.validate([batch], 32, mirror=True).loss == pytest.approx(
        step.validate([flipped], 32, mirror=True).loss, rel=1e-6
    )


def test_training_changes_weights_and_returns_the_sums_of_the_batch():
    network, step = make_step()
    before = [weight.numpy() for weight in network.trainable_weights]
    batch = next(numbered_loader(40, 16).training_batches(epoch=0))
    _, _, photos = step.train(batch, epoch=0, step=0).numpy()
    assert photos == 16
    assert all((old != new.numpy()).any() for old, new in zip(before, network.trainable_weights, strict=True))
