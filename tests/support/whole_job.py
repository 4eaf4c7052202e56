"""A store as whole jobs leave it, written by the functions that write in a job, without Ray."""

from __future__ import annotations

from pawcast import registry
from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, Split
from pawcast.recipes import resolve
from pawcast.registry import CURVES, WEIGHTS
from pawcast.store import Store, records
from pawcast.training import checkpoint, lease, runs
from pawcast.training.checkpoint import BEST_WEIGHTS, OPTIMIZER, SUMMARY, TrainState
from pawcast.training.runs import Workers
from pawcast.vision.preprocess import Preprocessing


def write_jobs(store: Store) -> None:
    """Write two datasets, a run that is over and one that isn't, and a model of two versions."""
    manifest = _write_dataset(store, "pets", seed=0)
    _write_dataset(store, "pets", seed=1)
    _write_dataset(store, "others", seed=2)
    for run in ("over", "stopped"):
        _train(store, run, manifest)
    for number in (1, 2):
        _register(store, manifest, f"weights {number}".encode())
        for split in ("val", "test"):
            key = f"models/catdog/evaluations/{number}-{split}.json"
            records.write(store, key, {"model": f"catdog@{number}", "on": split, "accuracy": 0.75})
    registry.move_ref(store, "catdog", "production", 1)
    runs.finish(store, "over", "catdog@1")


def _write_dataset(store: Store, name: str, seed: int) -> Manifest:
    splits = {}
    for index, split in enumerate(("train", "val")):
        rows = [
            shards.PhotoRow(f"{seed}.{i}", f"{i}.jpg", i % 2, "ab" * 32, 3, 2, bytes([seed, index, i]) * 9)
            for i in range(4)
        ]
        written = [shards.write(store, name, split, rows[at : at + 2], ["cat", "dog"]) for at in (0, 2)]
        splits[split] = Split(photos=4, per_class={"cat": 2, "dog": 2}, shards=written)
    report = manifests.write_report(store, name, f'{{"photos": {seed}}}\n'.encode())
    facts = {"classes": ["cat", "dog"], "source_sha256": "0" * 64, "quarantine": [], "report_sha256": report}
    manifest = Manifest(dataset=name, seed=seed, splits=splits, **facts)
    manifests.publish(store, manifest)
    return manifest


def _train(store: Store, run: str, manifest: Manifest) -> None:
    runs.claim(store, run, manifest, resolve("smoke"), None, "catdog", Workers(number=2, cpus=0.5))
    lease.acquire(store, run)
    for epochs in (1, 2, 3):
        files = {name: f"{name} {epochs} of {run}".encode() for name in (WEIGHTS, BEST_WEIGHTS, OPTIMIZER, SUMMARY)}
        state = TrainState(epochs_done=epochs, history={"val_acc": [0.5] * epochs}, best_epoch=0)
        checkpoint.save(store, run, state, files)
    for name in ("history.json", "timing.json", "summary.txt", CURVES, WEIGHTS):
        store.put(f"runs/{run}/{name}", f"{name} of {run}".encode())


def _register(store: Store, manifest: Manifest, weights: bytes) -> None:
    registry.register(
        store,
        "catdog",
        {WEIGHTS: weights, CURVES: b"curves of " + weights},
        run="over",
        created="2026-01-01T00:00:00Z",
        code="0",
        recipe=resolve("smoke"),
        dataset=manifest.dataset,
        dataset_sha256=manifest.digest,
        classes=manifest.classes,
        preprocessing=Preprocessing(image_size=64),
        metrics={"val_acc": 0.5},
        architecture="",
    )
