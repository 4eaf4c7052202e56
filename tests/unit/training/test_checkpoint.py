"""Checkpoints: what comes back, and which one counts if the newest is broken."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.models import weights as weights_file
from pawcast.registry import WEIGHTS
from pawcast.store import open_store
from pawcast.training import checkpoint, optimizers
from pawcast.training.checkpoint import BEST_WEIGHTS, OPTIMIZER, TrainState
from tests.support.training import network_and_optimizer

FILES = {WEIGHTS: b"weights", BEST_WEIGHTS: b"best", OPTIMIZER: b"optimizer"}


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


@pytest.mark.parametrize("damage", ["truncated file", "missing file", "no state", "invalid state"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    store = open_store(str(tmp_path))
    assert checkpoint.load_latest(store, "run") is None
    for epochs in (1, 2, 3):
        save(store, epochs)
    folder = "runs/run/checkpoints/"
    assert sorted({key.split("/")[3] for key in store.list(folder)}) == ["000002", "000003"]
    newest = f"{folder}000003/"
    if damage == "truncated file":
        store.put(newest + OPTIMIZER, store.get(newest + OPTIMIZER)[:-1])
    elif damage == "missing file":
        store.delete(newest + BEST_WEIGHTS)
    elif damage == "no state":
        store.delete(newest + "state.json")
    else:
        store.put(newest + "state.json", b"{")
    assert checkpoint.load_latest(store, "run")[0].epochs_done == 2
    # The epoch is trained again and its checkpoint replaces the broken one.
    save(store, 3)
    assert checkpoint.load_latest(store, "run")[0].epochs_done == 3
