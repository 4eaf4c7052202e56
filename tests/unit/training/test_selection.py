"""Which epoch is the best, and when a run ends early."""

from __future__ import annotations

import pytest

from pawcast.recipes import Recipe, resolve
from pawcast.training.checkpoint import TrainState
from pawcast.training.selection import best_epoch, out_of_patience


def best(recipe: Recipe, *val_acc: float | None) -> int:
    """Return the best epoch where accuracy alone tells epochs apart."""
    return best_epoch(recipe, val_acc, [None if acc is None else 0.5 for acc in val_acc])


def test_the_best_epoch_is_the_first_best_one_of_the_latest_size():
    recipe = resolve("article", ["train_sizes=[[0.5, 64], [1, 96]]", "epochs=4"])
    assert best(recipe, 0.9) == 0
    assert best(recipe, 0.9, 0.8) == 0
    assert best(recipe, 0.9, 0.8, 0.7) == 2
    assert best(recipe, 0.9, 0.8, 0.7, 0.7) == 2


def test_the_best_epoch_is_a_validated_one():
    recipe = resolve("article", ["train_sizes=[[0.5, 64], [1, 96]]", "epochs=8", "validate_every=3"])
    assert best(recipe) == best(recipe, None, None) == -1
    assert best(recipe, None, None, 0.9) == 2
    # Epochs with larger photos, not yet validated: the best of the smaller size stays.
    assert best(recipe, None, None, 0.9, None, None) == 2
    assert best(recipe, None, None, 0.9, None, None, 0.7) == 5
    assert best(recipe, None, None, 0.9, None, None, 0.7, None, 0.7) == 5


@pytest.mark.parametrize(
    ("val_loss", "expected"), [([0.5, 0.4, 0.3, 0.2], 2), ([0.5, 0.4, 0.4, 0.2], 1), ([0.1, 0.6, 0.9, 0.2], 1)]
)
def test_of_epochs_with_the_same_accuracy_the_lower_loss_wins(val_loss, expected):
    assert best_epoch(resolve("smoke"), [0.7, 0.9, 0.9, 0.8], val_loss) == expected


@pytest.mark.parametrize(
    ("every", "patience", "val_acc", "ends_after"),
    [
        (1, 2, [0.5, 0.6, 0.6, 0.6, 0.6, 0.6], 4),
        (1, 0, [0.5, 0.6, 0.6, 0.6, 0.6, 0.6], None),
        # Two epochs have passed after the fourth, but the fifth might be better: only the sixth,
        # which is validated, ends the run.
        (3, 2, [None, None, 0.6, None, None, 0.6, None, None], 6),
        (2, 4, [None, 0.6, None, 0.5, None, 0.5, None, 0.7], 6),
        (2, 5, [None, 0.6, None, 0.5, None, 0.5, None, 0.7, None], None),
        (4, 2, [None, None, None, 0.5, None], None),
    ],
)
def test_patience_counts_epochs_and_only_a_validated_epoch_ends_a_run(every, patience, val_acc, ends_after):
    recipe = resolve("smoke", ["epochs=30", f"patience={patience}", f"validate_every={every}"])

    def ends(done: int) -> bool:
        past = val_acc[:done]
        return out_of_patience(
            recipe, TrainState(epochs_done=done, history={"val_acc": past}, best_epoch=best(recipe, *past))
        )

    assert next((done for done in range(len(val_acc) + 1) if ends(done)), None) == ends_after
