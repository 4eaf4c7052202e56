"""The parts of a step's time."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.recipes import resolve
from pawcast.training import timing
from pawcast.training.collective import Collective
from pawcast.training.step import TrainStep
from tests.support.files import import_job
from tests.support.training import network_and_optimizer, numbered_loader


def test_measuring_a_step_changes_no_variable_and_its_parts_add_up():
    network, optimizer = network_and_optimizer("smoke", "image_size=32", "batch_size=16")
    step = TrainStep(resolve("smoke", ["image_size=32", "batch_size=16"]), network, optimizer, Collective(0, 1))
    before = [weight.numpy() for weight in [*network.weights, *optimizer.variables]]
    batch = next(numbered_loader(40, 16).training_batches(epoch=0))
    measured = timing.measure(step, 0, batch, seconds=5.0, data_wait=0.5)
    parts = measured["parts"]
    assert measured["photos"] == 16
    assert measured["seconds"] == pytest.approx(5) == sum(parts.values())
    assert (parts["data_wait"], parts["all_reduce"]) == (0.5, 0)
    assert 0 < parts["augmentation"] < parts["forward_backward"]
    for old, new in zip(before, [*network.weights, *optimizer.variables], strict=True):
        assert np.array_equal(old, new.numpy())


def test_the_line_for_people_names_the_longest_part_first():
    parts = {"data_wait": 0.5, "augmentation": 1.0, "all_reduce": 0.0, "forward_backward": 3.5}
    assert import_job("train").describe({"photos": 16, "seconds": 5.0, "parts": parts}) == (
        "a step of 16 photos takes 5.000 s: "
        "forward backward 70.0%, augmentation 20.0%, data wait 10.0%, all reduce 0.0%"
    )
