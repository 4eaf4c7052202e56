"""Data-parallel training on a real Ray: N workers equal one, and what a run stores."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import ray
from PIL import Image
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from pawcast import recipes, registry
from pawcast.data import manifest as manifests
from pawcast.data.ingest import ingest
from pawcast.data.reader import SplitReader
from pawcast.errors import ClusterError, ConflictError, DataError, NotFoundError, TrainingError, UsageError
from pawcast.inference.engine import Engine, build_network
from pawcast.inference.predictor import predict_scores
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from pawcast.training import checkpoint, lease
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import Workers
from pawcast.training.tf_config import TensorFlowClusterConfig
from pawcast.training.trainer import Callbacks, Trained, resume, train
from pawcast.vision import preprocess
from tests.support.services import job, plain_environment, result_of

pytestmark = pytest.mark.usefixtures("local_ray")
HALF = 0.5


@pytest.fixture(scope="module")
def store(tmp_path_factory, photos, local_ray) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    ingest(store, "pets", str(photos.labelled), str(photos.unlabelled), test_size=60)
    return store


def run(store: Store, workers: int, name: str, *settings: str, **options) -> Trained:
    config = recipes.resolve("smoke", ["image_size=48", "epochs=2", *settings])
    return train(store, "pets", config, Workers(number=workers, cpus=HALF), run=name, **options)


# Plain gradient descent: RMSprop divides by gradients, which amplifies the rounding of tiny ones.
NORMALIZED = ("model=residual", "width=0.25", "optimizer=sgd", "learning_rate=0.002")


# Augmentation and dropout are on: their random numbers belong to photos. 180 photos in batches of
# 50 over 3 workers: neither the last batch nor the slices have equal lengths. Batch normalization
# takes its statistics from all ranks.
@pytest.mark.parametrize(
    ("name", "count", "settings", "tolerance"),
    [
        pytest.param("plain", 2, (), 1e-4),
        pytest.param("plain", 3, (), 1e-4, marks=pytest.mark.long),
        pytest.param("normalized", 3, NORMALIZED, 1e-3, marks=pytest.mark.long),
    ],
)
def test_several_workers_give_the_loss_curve_of_one(store, name, count, settings, tolerance):
    exact = ("batch_size=50", "precision=float32", *settings)
    one = run(store, 1, f"{name}-{count}-alone", *exact)
    many = run(store, count, f"{name}-{count}", *exact)
    for key in ("loss", "val_loss", "acc", "val_acc"):
        np.testing.assert_allclose(many.history[key], one.history[key], rtol=1e-3, atol=1e-4, err_msg=key)
    for a, b in zip(weights_of(store, many), weights_of(store, one), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    # The comparison would mean nothing if training changed nothing.
    assert abs(one.history["loss"][0] - one.history["loss"][1]) > 4 * 1e-3 * one.history["loss"][0]


@pytest.mark.long
def test_a_private_ray_is_not_disturbed_by_another_cluster_of_the_machine(store, head):
    # Ray Train's clean-up once asked that cluster about this run, which it didn't know, and removed
    # the workers.
    assert head.port
    assert len(run(store, 1, "beside", "epochs=8").history["acc"]) == 8


@pytest.mark.long
def test_a_run_that_another_process_goes_on_with_ends(store):
    def take_lease(update: ProgressUpdate) -> None:
        if update.finished and update.epoch == 1:
            lease.acquire(store, "contested")

    with pytest.raises(ConflictError, match="Another process goes on"):
        run(store, 2, "contested", "epochs=60", callbacks=Callbacks(update=take_lease))
    done = len(json.loads(store.get("runs/contested/history.json"))["loss"])
    assert 2 <= done < 60
    assert not store.exists("runs/contested/result.json")


def weights_of(store: Store, trained: Trained) -> list[np.ndarray]:
    network = build_network(trained.version.recipe, registry.read_file(store, trained.version, WEIGHTS))
    return [np.asarray(weight) for weight in network.weights]


def test_a_run_stores_all_that_it_promises(store):
    updates: list[ProgressUpdate] = []
    stages: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        stages.append((stage, done, total))

    trained = run(store, 2, "whole", callbacks=Callbacks(progress, updates.append))
    assert stages[0] == ("decoding", 0, 240)
    assert ("decoding", 240, 240) in stages
    assert stages[-1] == ("comparing", 1, 1)
    files = set(store.list("runs/whole/"))
    for name in ("run.json", "history.json", "curves.png", "summary.txt", "model.weights.h5"):
        assert f"runs/whole/{name}" in files
    assert {"runs/whole/checkpoints/000001/state.json", "runs/whole/checkpoints/000002/state.json"} <= files
    history = json.loads(store.get("runs/whole/history.json"))
    assert {"acc", "val_acc", "loss", "val_loss", "seconds"} <= set(history)
    timing = json.loads(store.get("runs/whole/timing.json"))
    (reported,) = [update.timing for update in updates if update.timing]
    step = timing["step"]
    assert step == reported
    assert step["seconds"] == pytest.approx(sum(step["parts"].values()))
    assert step["photos"] == 64
    # Two workers: summing gradients takes time as well. The parts of an epoch add up to its time.
    assert all(step["parts"][part] > 0 for part in ("forward_backward", "augmentation", "all_reduce"))
    assert timing["epoch"]["validation"] == pytest.approx(np.mean(history["validation_seconds"]))
    assert timing["epoch"]["steps"] + timing["epoch"]["validation"] == pytest.approx(np.mean(history["seconds"]))
    assert timing["epoch"]["checkpoint"] > 0
    assert all(len(values) == 2 for values in history.values())
    Image.open(io.BytesIO(store.get("runs/whole/curves.png"))).verify()
    assert "conv2d" in store.get("runs/whole/summary.txt").decode()
    version = registry.resolve(store, "catdog@latest")
    assert version == trained.version
    assert version.classes == ["cat", "dog"]
    assert version.metrics["val_acc"] == max(history["val_acc"])
    assert [update.epoch for update in updates if update.finished] == [0, 1]
    assert Engine.load(store, version.name).predict(np.zeros((3, 48, 48, 3), np.uint8)).shape == (3,)


def test_validation_sees_photos_as_they_are_served(store):
    trained = run(store, 1, "soft", "epochs=1", "mirror=true", "eval_downscale=24", "precision=float32")
    engine = Engine.from_version(store, trained.version, "float32")
    rows = list(SplitReader(store, manifests.load(store, "pets").splits["val"]))
    labels = np.array([row.label for row in rows])

    def loss(scores: np.ndarray) -> float:
        return float(-np.log(np.where(labels == 1, scores, 1 - scores)).mean())

    served = loss(np.array(list(predict_scores(engine, (row.data for row in rows)))))
    assert trained.version.metrics["val_loss"] == pytest.approx(served, rel=1e-3)
    # Photos that are not reduced to `eval_downscale` have another loss.
    sharp = loss(engine.predict(np.stack([preprocess.load_image(row.data, 48) for row in rows])))
    assert served != pytest.approx(sharp, rel=2e-3)


@pytest.mark.long
def test_the_same_seed_gives_the_same_weights_bit_for_bit(store):
    # Dropout is on: its masks come from the seed as well.
    one, other = (run(store, 2, f"seed-{i}", "deterministic=true") for i in (1, 2))
    assert other.history["loss"] == one.history["loss"]
    assert registry.read_file(store, other.version, WEIGHTS) == registry.read_file(store, one.version, WEIGHTS)
    records = [json.loads(store.get(f"runs/seed-{i}/run.json")) for i in (1, 2)]
    for key in ("recipe", "dataset_sha256", "code_sha256"):
        assert records[0][key] == records[1][key]


# Photos grow between two validations, so that a graph for the new size is made once after a
# validated epoch and once after one that was not validated.
EXACT = ("model=residual", "width=0.25", "epochs=5", "train_sizes=[[0.3, 32], [1, 48]]", "deterministic=true")
MEASURED = ("acc", "val_acc", "loss", "val_loss", "learning_rate")


def last_weights(store: Store, name: str) -> str:
    """The sha256 of a run's latest weights, those that it would go on with."""
    state, _ = checkpoint.load_latest(store, name)
    return state.sha256[WEIGHTS]


@pytest.fixture(scope="module")
def sparse(store) -> Trained:
    return run(store, 1, "sparse", *EXACT, "validate_every=3")


@pytest.mark.long
def test_validating_less_often_changes_no_weight(store, sparse):
    each = run(store, 1, "each", *EXACT)
    assert last_weights(store, "sparse") == last_weights(store, "each")
    kept = json.loads(store.get("runs/sparse/history.json"))
    assert kept == sparse.history
    for key in MEASURED:
        validated = (2, 4) if key.startswith("val_") else range(5)
        assert kept[key] == [value if i in validated else None for i, value in enumerate(each.history[key])]
    assert [seconds > 0 for seconds in kept["validation_seconds"]] == [False, False, True, False, True]
    assert sparse.version.metrics["val_acc"] == max(value for value in kept["val_acc"] if value is not None)
    assert sparse.best_epoch in (3, 5)


@pytest.mark.long
def test_a_run_resumed_between_validations_validates_after_the_same_epochs(store, sparse):
    before = last_weights(store, "sparse")
    store.delete("runs/sparse/checkpoints/000005/state.json")
    store.delete("runs/sparse/result.json")
    state, _ = checkpoint.load_latest(store, "sparse")
    assert (state.epochs_done, state.history["val_acc"][-1], state.best_epoch) == (4, None, 2)
    assert state.files[checkpoint.BEST_WEIGHTS] != state.files[WEIGHTS]
    resumed = resume(store, "sparse")
    assert {key: resumed.history[key] for key in MEASURED} == {key: sparse.history[key] for key in MEASURED}
    assert last_weights(store, "sparse") == before
    assert resumed.best_epoch == sparse.best_epoch
    assert resumed.version.files[WEIGHTS] == sparse.version.files[WEIGHTS]


def test_ranks_that_disagree_stop_the_run(tmp_path):
    def loop(config):
        from pawcast.runtime.tensorflow import keras
        from pawcast.training.loop import _require_equal_weights

        rank = ray.train.get_context().get_world_rank()
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        _require_equal_weights(model, rank, epoch=0)
        model.layers[0].kernel.assign_add([[0.0], [1e-6 * rank]])
        _require_equal_weights(model, rank, epoch=1)

    trainer = DataParallelTrainer(
        loop,
        train_loop_config={},
        backend_config=TensorFlowClusterConfig(),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": HALF}),
        run_config=RunConfig(name="disagree", storage_path=str(tmp_path)),
    )
    with pytest.raises(ray.train.TrainingFailedError, match="different weights after epoch 2"):
        trainer.fit()


def test_a_loss_that_is_not_finite_stops_the_run_with_its_reason(store):
    with pytest.raises(TrainingError, match=r"became NaN or infinite in epoch 1, by step \d"):
        run(store, 2, "diverged", "learning_rate=3e38", "warmup_epochs=0")


@pytest.mark.long
@pytest.mark.parametrize(
    ("every", "message"),
    [(1, "validation loss is NaN or infinite after epoch 1"), (2, "Weights became NaN or infinite in epoch 1")],
)
def test_weights_that_are_not_finite_stop_the_run_before_its_checkpoint(store, every, message):
    # With one step in an epoch, the training loss is that of the weights before the step.
    settings = ("learning_rate=3e38", "warmup_epochs=0", "batch_size=180", f"validate_every={every}")
    with pytest.raises(TrainingError, match=rf"{message}.*Fix: train again .* --set learning_rate=3e\+37"):
        run(store, 1, f"diverged-late-{every}", *settings)
    assert {key.split("/")[-1] for key in store.list(f"runs/diverged-late-{every}/")} == {
        "run.json",
        "attempt.json",
        "summary.txt",
    }


OWN = """
import keras
from pawcast.recipes.schema import Recipe

def network(recipe):
    pixels = keras.Input((recipe.image_size, recipe.image_size, 3))
    features = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(pixels)
    features = keras.layers.Dropout(0.1)(keras.layers.GlobalAveragePooling2D()(features))
    return keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid")(features))

def recipe():
    return Recipe(name="own", image_size=32, epochs=2, batch_size=40, label_smoothing=0.1, optimizer="adamw")
"""


@pytest.mark.long
def test_a_users_own_recipe_and_network_go_all_the_way(store, photos, tmp_path):
    (tmp_path / "own_code.py").write_text(OWN)
    environment = {**plain_environment(), "PYTHONPATH": str(tmp_path)}
    code, output, errors = job(
        *("train.py", "--dataset", "pets", "--recipe", "own_code:recipe", "--model", "own_code:network", "--json"),
        *("--workers", "2", "--cpus-per-worker", "0.5", "--store", store.uri),
        environment=environment,
    )
    assert code == 0, errors
    model = result_of(output)["model"]
    assert registry.resolve(store, model).recipe.model == "own_code:network"
    photo = next(photos.labelled_folder.iterdir())
    code, output, errors = job(
        "predict.py", str(photo), "--model", model, "--json", "--store", store.uri, environment=environment
    )
    assert code == 0, errors
    assert 0.5 <= result_of(output)["probability"] <= 1
    # Without the user's module the error names it.
    code, _, errors = job("predict.py", str(photo), "--model", model, "--store", store.uri)
    assert code == 3
    assert "No module 'own_code'" in errors


@pytest.mark.long
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("keras.Model(pixels, ", "keras.Model(pixels, 1 / 0 * ", "division by zero"),
        # TensorFlow finds this one in the first step.
        (
            "(pixels)\n",
            "(keras.ops.reshape(keras.ops.reshape(pixels, (-1, 7)), (-1, 32, 32, 3)))\n",
            "Input to reshape",
        ),
    ],
)
def test_a_mistake_in_a_network_is_not_tried_again(store, tmp_path, right, wrong, message):
    assert right in OWN
    (tmp_path / "own_code.py").write_text(OWN.replace(right, wrong))
    code, _, errors = job(
        *("train.py", "--dataset", "pets", "--recipe", "own_code:recipe", "--model", "own_code:network"),
        *("--workers", "2", "--cpus-per-worker", "0.5", "--store", store.uri),
        environment={**plain_environment(), "PYTHONPATH": str(tmp_path)},
    )
    assert code == 10, errors
    assert message in errors.splitlines()[-1]
    assert "Going on from the last checkpoint" not in errors
    assert "Traceback" not in errors


def test_one_class_alone_is_refused(store):
    manifest = manifests.load(store, "pets")
    train_split = manifest.splits["train"].model_copy(update={"per_class": {"cat": 180, "dog": 0}})
    lopsided = manifest.model_copy(update={"dataset": "cats", "splits": {**manifest.splits, "train": train_split}})
    manifests.publish(store, lopsided)
    with pytest.raises(DataError, match="one class only"):
        train(store, "cats", recipes.resolve("smoke"), Workers(number=1))


@pytest.mark.long
def test_patience_ends_a_run_that_gets_no_better(store):
    trained = run(store, 2, "impatient", "epochs=30", "learning_rate=1e-8", "patience=2", "batch_size=180")
    assert len(trained.history["acc"]) < 30
    assert len(trained.history["acc"]) - trained.best_epoch == 2


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
        train(store, "pest", recipes.resolve("smoke"), Workers(number=1))
    assert not any(store.exists(f"runs/{name}/run.json") for name in "bcd")
