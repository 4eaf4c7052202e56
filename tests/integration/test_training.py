"""Data-parallel training on a real Ray: N workers equal one, and what a run leaves."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from pawcast import recipe as recipes
from pawcast import registry
from pawcast.dataset.ingest import ingest
from pawcast.errors import ClusterError, ConflictError, NotFoundError, TrainingError, UsageError
from pawcast.inference.engine import Engine
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from pawcast.training.collective import TensorFlowClusterConfig
from pawcast.training.trainer import Trained, Workers, train
from pawcast.training.worker import Progress

pytestmark = pytest.mark.usefixtures("local_ray")
HALF = 0.5


@pytest.fixture(scope="module")
def store(tmp_path_factory, photos, local_ray) -> Store:
    place = open_store(str(tmp_path_factory.mktemp("store")))
    ingest(place, "pets", str(photos.labelled), str(photos.unlabelled), holdout=60)
    return place


def run(store: Store, workers: int, name: str, *settings: str, **options) -> Trained:
    config = recipes.resolve("smoke", ["image_size=48", "epochs=2", *settings])
    return train(store, "pets", config, Workers(workers, cpus=HALF), run=name, **options)


def test_two_and_three_workers_give_the_loss_curve_of_one(store):
    # 180 photos in batches of 50 over 3 workers: neither the last batch nor the shares divide. Dropout is off,
    # since its masks belong to ranks; augmentation is on.
    exact = ("dropout=0", "batch_size=50")
    one = run(store, 1, "one", *exact)
    weights = weights_of(store, one)
    for count in (2, 3):
        many = run(store, count, f"many-{count}", *exact)
        for key in ("loss", "val_loss", "acc", "val_acc"):
            np.testing.assert_allclose(many.history[key], one.history[key], rtol=1e-3, atol=1e-4, err_msg=key)
        for a, b in zip(weights_of(store, many), weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-3)
    # The comparison would be empty if training did nothing.
    assert abs(one.history["loss"][0] - one.history["loss"][1]) > 1e-2


@pytest.mark.long
def test_a_private_ray_is_left_alone_by_another_cluster_of_the_machine(store, head):
    # Ray Train's clean-up once asked that cluster about this run, and removed the workers as nobody's.
    assert head.port
    assert len(run(store, 1, "beside", "epochs=8").history["acc"]) == 8


def weights_of(store: Store, trained: Trained) -> list[np.ndarray]:
    from pawcast import models

    network = models.build(trained.version.recipe)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / WEIGHTS
        file.write_bytes(registry.read_file(store, trained.version, WEIGHTS))
        network.load_weights(file)
    return [np.asarray(weight) for weight in network.weights]


def test_a_run_leaves_all_that_it_promises_and_a_second_one_equals_it(store):
    seen: list[Progress] = []
    trained = run(store, 2, "whole", on_progress=seen.append)
    files = set(store.list("runs/whole/"))
    for name in ("run.json", "history.json", "curves.png", "summary.txt", "model.weights.h5"):
        assert f"runs/whole/{name}" in files
    assert any("/checkpoint_" in key for key in files)
    history = json.loads(store.get("runs/whole/history.json"))
    assert {"acc", "val_acc", "loss", "val_loss", "seconds"} <= set(history)
    assert all(len(values) == 2 for values in history.values())
    Image.open(io.BytesIO(store.get("runs/whole/curves.png"))).verify()
    assert "conv2d" in store.get("runs/whole/summary.txt").decode()
    version = registry.resolve(store, "catdog@latest")
    assert version == trained.version
    assert version.classes == ["cat", "dog"]
    assert version.metrics["val_acc"] == max(history["val_acc"])
    assert [p.epoch for p in seen if p.finished] == [0, 1]
    assert Engine.load(store, version.name).predict(np.zeros((3, 48, 48, 3), np.uint8)).shape == (3,)

    # Dropout is on here: its masks come from the seed as well.
    again = run(store, 2, "again")
    np.testing.assert_allclose(again.history["loss"], trained.history["loss"], rtol=1e-4)


def test_ranks_that_disagree_stop_the_run(tmp_path):
    def loop(config):
        import keras

        from pawcast.training.worker import _require_agreement

        rank = ray.train.get_context().get_world_rank()
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        _require_agreement(model, rank, epoch=0)
        model.layers[0].kernel.assign_add([[0.0], [1e-6 * rank]])
        _require_agreement(model, rank, epoch=1)

    trainer = DataParallelTrainer(
        loop,
        train_loop_config={},
        backend_config=TensorFlowClusterConfig(),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": HALF}),
        run_config=RunConfig(name="disagree", storage_path=str(tmp_path)),
    )
    with pytest.raises(ray.train.TrainingFailedError, match="different weights after epoch 2"):
        trainer.fit()


def test_a_loss_that_is_no_number_stops_the_run_with_its_reason(store):
    with pytest.raises(TrainingError, match="stopped being a number in epoch 1"):
        run(store, 2, "diverged", "learning_rate=3e38", "warmup_epochs=0")


def test_wrong_use_is_refused_before_any_worker_starts(store):
    run(store, 1, "taken", "epochs=1")
    with pytest.raises(ConflictError, match="taken"):
        run(store, 1, "taken")
    with pytest.raises(UsageError, match="batch_size=32"):
        run(store, 1, "b", "batch_size=500")
    with pytest.raises(UsageError, match="more workers than photos"):
        run(store, 4, "c", "batch_size=3")
    with pytest.raises(ClusterError, match="2 CPUs"):
        run(store, 100, "d", "batch_size=128")
    with pytest.raises(NotFoundError, match="did you mean 'pets'"):
        train(store, "pest", recipes.resolve("smoke"), Workers(1))
    assert not any(store.exists(f"runs/{name}/run.json") for name in "bcd")
