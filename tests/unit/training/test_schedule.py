"""The learning rate over the steps of a run."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pawcast.recipes import resolve
from pawcast.training.schedule import learning_rate


def test_the_rate_rises_during_warm_up_then_falls_to_nothing():
    recipe = resolve("article", ["learning_rate=1", "warmup_epochs=1", "epochs=10"])
    rates = [learning_rate(recipe, step, 20) for step in range(200)]
    assert rates[0] == pytest.approx(1 / 20, rel=1e-3)
    assert max(rates) == pytest.approx(rates[19])
    assert all(a > b for a, b in pairwise(rates[19:]))
    assert rates[-1] < 1e-3


def test_a_constant_rate_stays():
    constant = resolve("article", ["schedule=constant", "warmup_epochs=0", "learning_rate=0.5"])
    assert {learning_rate(constant, step, 20) for step in (0, 50, 199)} == {0.5}


def test_a_frozen_backbone_has_a_rate_of_its_own_and_the_schedule_begins_after_it():
    recipe = resolve(
        "article",
        ["schedule=linear", "learning_rate=1", "warmup_epochs=1", "epochs=6", "frozen_epochs=2", "momentum=0"],
    )
    rates = [learning_rate(recipe, step, 10) for step in range(60)]
    assert set(rates[:20]) == {recipe.frozen_learning_rate}
    assert rates[20] == pytest.approx(0.1)
    assert max(rates) == rates[29] == rates[30] == 1
    assert rates[45] == pytest.approx(0.5, abs=0.15)
    assert 0 < rates[-1] < 0.05
