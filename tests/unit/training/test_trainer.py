"""What the driver of training does without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pawcast import registry
from pawcast.errors import ConflictError
from pawcast.recipes import resolve
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from pawcast.training import checkpoint, runs, trainer
from pawcast.training.checkpoint import BEST_WEIGHTS, OPTIMIZER, TrainState
from pawcast.training.runs import Workers
from pawcast.vision.preprocess import Preprocessing

MANIFEST = SimpleNamespace(dataset="pets", digest="0" * 64, splits={"train": SimpleNamespace(photos=100)})
FILES = {WEIGHTS: b"weights", BEST_WEIGHTS: b"best", OPTIMIZER: b"optimizer"}


def trained_run(store: Store) -> None:
    """Leave what a run leaves that is over but for its registration."""
    runs.claim(store, "killed", MANIFEST, resolve("smoke"), None, "catdog", Workers())
    history = {"acc": [0.5, 0.75], "seconds": [2.0, 2.0], "validation_seconds": [1.0, 1.0]}
    state = TrainState(epochs_done=2, history=history, best_epoch=1, served={"val_acc": 0.25, "val_loss": 0.25})
    checkpoint.save(store, "killed", state, FILES)


def register(store: Store, run: str) -> registry.ModelVersion:
    return registry.register(
        store,
        "catdog",
        {WEIGHTS: b"best"},
        run=run,
        created="2026-01-01T00:00:00Z",
        code="1",
        recipe=resolve("smoke"),
        dataset="pets",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=Preprocessing(image_size=64),
        metrics={},
        architecture="",
    )


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setattr(trainer.manifests, "load", lambda store, name: MANIFEST)
    monkeypatch.setattr(trainer, "_check", lambda *arguments: None)
    return open_store(str(tmp_path))


def test_a_run_killed_after_its_registration_registers_no_second_version(store):
    trained_run(store)
    version = register(store, "killed")
    register(store, "another")
    resumed = trainer.resume(store, "killed")
    assert resumed.version == version
    assert (len(resumed.history["acc"]), resumed.best_epoch) == (2, 2)
    assert len(list(store.list("models/catdog/versions/"))) == 2
    # `latest` never moves back.
    assert registry.resolve(store, "catdog@latest").run == "another"
    with pytest.raises(ConflictError, match="it became catdog@1"):
        trainer.resume(store, "killed")


def test_a_version_whose_registration_was_cut_short_becomes_the_latest(store):
    trained_run(store)
    version = register(store, "killed")
    store.delete("models/catdog/refs/latest")
    assert trainer.resume(store, "killed").version == version
    assert registry.resolve(store, "catdog@latest") == version


def test_a_damaged_version_of_another_run_is_passed_over(store):
    trained_run(store)
    version = register(store, "killed")
    another = register(store, "another")
    store.put(f"models/catdog/versions/{another.version}.json", b"{")
    assert registry.find_run(store, "catdog", "killed") == version
    assert registry.find_run(store, "catdog", "another") is None
    assert registry.find_run(store, "none", "killed") is None


def test_nan_never_reaches_a_record():
    with pytest.raises(ValueError, match="finite"):
        TrainState(epochs_done=1, history={"loss": [float("nan")]}, best_epoch=0)
    with pytest.raises(ValueError, match="finite"):
        TrainState(epochs_done=1, history={}, best_epoch=0, served={"val_loss": float("inf")})
