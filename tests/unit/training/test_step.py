"""The training step on one rank."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import keras, tf
from pawcast.training.collective import Collective
from pawcast.training.loader import Batch
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


def test_class_weights_scale_the_training_loss_of_each_photo_and_nothing_else():
    batch = next(numbered_loader(16, 16).training_batches(epoch=0))

    def train(weights: tuple[float, float] | None, batch: Batch) -> tuple[np.ndarray, list[np.ndarray]]:
        keras.utils.set_random_seed(0)
        network, optimizer = network_and_optimizer("smoke", *SETTINGS)
        step = TrainStep(resolve("smoke", [*SETTINGS]), network, optimizer, Collective(0, 1), weights)
        sums = step.train(batch, epoch=0, step=0).numpy()
        return sums, [weight.numpy() for weight in network.trainable_weights]

    def only(label: int) -> Batch:
        return batch._replace(weights=(batch.labels == label).astype(np.float32))

    (loss_0, *_), _ = train(None, only(0))
    (loss_1, *_), _ = train(None, only(1))
    plain, weights = train(None, batch)
    sums, weighted = train((0.5, 3.0), batch)
    assert sums[0] == pytest.approx(0.5 * loss_0 + 3 * loss_1, rel=1e-5)
    assert sums[1:].tolist() == plain[1:].tolist()
    assert any((a != b).any() for a, b in zip(weights, weighted, strict=True))
    # Equal weights change nothing, to the last bit.
    _, same = train((1.0, 1.0), batch)
    assert all((a == b).all() for a, b in zip(weights, same, strict=True))
