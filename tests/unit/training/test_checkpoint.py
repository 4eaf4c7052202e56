"""Checkpoints: what comes back, and which one counts if the newest is broken."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pawcast.errors import IntegrityError
from pawcast.models import weights as weights_file
from pawcast.registry import WEIGHTS
from pawcast.store import open_store, records
from pawcast.training import checkpoint, optimizers
from pawcast.training.checkpoint import BEST_WEIGHTS, OPTIMIZER, SUMMARY, TrainState
from tests.support.damage import DAMAGES
from tests.support.training import network_and_optimizer

FILES = {WEIGHTS: b"weights", BEST_WEIGHTS: b"best", OPTIMIZER: b"optimizer", SUMMARY: b"summary"}


def save(store, epochs: int, files: dict[str, bytes] = FILES) -> None:
    state = TrainState(epochs_done=epochs, history={"val_acc": [0.5] * epochs}, best_epoch=0)
    checkpoint.save(store, "run", state, files)


def test_a_checkpoint_brings_back_network_and_optimizer(tmp_path):
    store = open_store(str(tmp_path))
    network, optimizer = network_and_optimizer()
    optimizer.apply([np.ones(v.shape, np.float32) for v in network.trainable_variables], network.trainable_variables)
    weights = weights_file.dump(network)
    save(store, 3, {WEIGHTS: weights, BEST_WEIGHTS: weights, OPTIMIZER: optimizers.dump(optimizer)})
    state, files = checkpoint.load_latest(store, "run")
    assert state.epochs_done == 3
    other, fresh = network_and_optimizer()
    weights_file.load(other, files[WEIGHTS])
    optimizers.load(fresh, files[OPTIMIZER])
    for a, b in zip([*network.weights, *optimizer.variables], [*other.weights, *fresh.variables], strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_checkpoint_before_the_first_validation_has_no_best_weights(tmp_path):
    store = open_store(str(tmp_path))
    unvalidated = TrainState(epochs_done=1, history={"loss": [0.7], "val_acc": [None]}, best_epoch=-1)
    checkpoint.save(store, "run", unvalidated, {**FILES, BEST_WEIGHTS: b""})
    state, files = checkpoint.load_latest(store, "run")
    assert (state.history, state.best_epoch) == (unvalidated.history, -1)
    assert files[BEST_WEIGHTS] == b""


@pytest.mark.parametrize("name", ["state.json", *FILES])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage, name):
    store = open_store(str(tmp_path))
    assert checkpoint.load_latest(store, "run") is None
    for epochs in (1, 2, 3):
        save(store, epochs)
    folder = "runs/run/checkpoints/"
    assert sorted({key.split("/")[3] for key in store.list(folder)}) == ["000002", "000003"]
    key = f"{folder}000003/{name}"
    store.put("runs/other.json", records.seal("runs/other.json", TrainState(epochs_done=9, history={}, best_epoch=0)))
    damage(store, key, "runs/other.json", random.Random(0))
    notes: list[str] = []
    assert checkpoint.load_latest(store, "run", notes.append)[0].epochs_done == 2
    assert len(notes) == 1
    assert notes[0].startswith(key)
    assert notes[0].endswith("The checkpoint before it is used.")
    # The epoch is trained again and its checkpoint replaces the damaged one.
    save(store, 3)
    assert checkpoint.load_latest(store, "run", pytest.fail)[0].epochs_done == 3


def test_a_run_without_a_whole_checkpoint_does_not_begin_again_silently(tmp_path):
    store = open_store(str(tmp_path))
    for epochs in (1, 2):
        save(store, epochs)
    store.delete("runs/run/checkpoints/000001/state.json")
    store.put(f"runs/run/checkpoints/000002/{WEIGHTS}", b"")
    with pytest.raises(IntegrityError, match=f"000002/{WEIGHTS}.*000001/state.json.*delete runs/run/checkpoints/"):
        checkpoint.load_latest(store, "run", pytest.fail)
    for key in store.list("runs/run/checkpoints/"):
        store.delete(key)
    assert checkpoint.load_latest(store, "run", pytest.fail) is None


def test_a_first_checkpoint_that_was_never_finished_is_said(tmp_path):
    store = open_store(str(tmp_path))
    store.put(f"runs/run/checkpoints/000001/{WEIGHTS}", b"half")
    notes: list[str] = []
    assert checkpoint.load_latest(store, "run", notes.append) is None
    assert "000001/state.json is missing" in notes[0]
    assert "begins again" in notes[0]
