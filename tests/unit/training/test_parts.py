"""What a step is made of: order, slices, rate, network, checkpoint."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.store import open_store
from pawcast.training import checkpoint
from pawcast.training.checkpoint import TrainState
from pawcast.training.loader import BatchLoader, epoch_order
from pawcast.training.progress import ProgressUpdate
from pawcast.training.schedule import learning_rate
from pawcast.training.selection import best_epoch, out_of_patience
from tests.support.files import import_job


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure_tensorflow(1)


def make_feed(photos: int, batch: int, rank: int, world: int, ahead: int = 1) -> BatchLoader:
    """A feed of photos that carry their own index in their first pixel, in uneven blocks."""
    pixels = np.zeros((photos, 32, 32, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(photos) % 256, np.arange(photos) // 256
    blocks = np.split(pixels, sorted({photos // 3, photos // 2}))
    recipe = resolve("article", [f"batch_size={batch}", "image_size=32"])
    return BatchLoader(blocks, np.arange(photos) % 2, recipe, rank, world, ahead)


def indices(batch) -> list[int]:
    own = batch.weights > 0
    return (batch.pixels[own, 0, 0, 0].astype(int) + 256 * batch.pixels[own, 0, 0, 1].astype(int)).tolist()


@pytest.mark.parametrize("photos", [7, 64, 300])
@pytest.mark.parametrize("batch", [5, 7])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_ranks_slices_make_up_the_batch_of_one_worker(photos, batch, world):
    alone = list(make_feed(photos, batch, 0, 1).training_batches(epoch=2))
    ranks = [list(make_feed(photos, batch, rank, world).training_batches(epoch=2)) for rank in range(world)]
    order = epoch_order(photos, 0, 2)
    for step, whole in enumerate(alone):
        slices = [rank[step] for rank in ranks]
        together = [index for part in slices for index in indices(part)]
        assert together == indices(whole) == order[step * batch : (step + 1) * batch].tolist()
        counts = [len(indices(part)) for part in slices]
        assert max(counts) - min(counts) <= 1
        assert all(part.photos == len(together) for part in slices)
        for part in slices:
            # A photo without weight is there only where there is no other.
            assert len(part.pixels) == max(len(indices(part)), 1)
            own = part.weights > 0
            assert part.labels[own].tolist() == [index % 2 for index in indices(part)]
    assert sorted(i for step in alone for i in indices(step)) == list(range(photos))


@pytest.mark.parametrize("ahead", [2, 4, 9])
def test_batches_come_in_order_however_many_are_made_at_once(ahead):
    def content(feed):
        return [[np.asarray(part).tolist() for part in batch] for batch in feed.training_batches(epoch=1)]

    assert content(make_feed(40, 8, 0, 1, ahead)) == content(make_feed(40, 8, 0, 1))


def test_a_photo_keeps_its_draws_wherever_it_lands():
    def rows(batch):
        return zip(indices(batch), *batch.draws, strict=True)

    first = {i: draws for batch in make_feed(40, 8, 0, 1).training_batches(0) for i, *draws in rows(batch)}
    for rank in (0, 1):
        for batch in make_feed(40, 8, rank, 2).training_batches(0):
            for index, *draws in rows(batch):
                for mine, theirs in zip(draws, first[index], strict=True):
                    np.testing.assert_array_equal(mine, theirs)


def test_validation_comes_in_order_and_whole_in_the_size_asked_for():
    feed = make_feed(23, 5, 0, 1)
    assert [i for batch in feed.validation_batches(32) for i in indices(batch)] == list(range(23))
    assert {batch.pixels.shape[1:] for batch in feed.validation_batches(40)} == {(40, 40, 3)}


def test_photos_grow_with_the_epochs_and_shrink_no_further_than_crops_need():
    recipe = resolve("article", ["image_size=64", "train_sizes=[[0.5, 32], [1, 48]]", "epochs=4"])
    assert [recipe.size_at(epoch) for epoch in range(4)] == [32, 32, 48, 48]
    assert recipe.decode_size == 64
    blocks = [np.zeros((6, 64, 64, 3), np.uint8)]

    def sides(*settings: str) -> list[int]:
        again = resolve(
            "article", [f"train_sizes={[list(pair) for pair in recipe.train_sizes]}", "epochs=4", *settings]
        )
        feed = BatchLoader(blocks, np.arange(6) % 2, again, 0, 1)
        return [next(iter(feed.training_batches(epoch))).pixels.shape[1] for epoch in (0, 3)]

    assert sides("image_size=64") == [32, 48]
    assert sides("image_size=64", "augment.crop_area=0.35") == [39, 58]
    # Never more than there is.
    assert sides("image_size=64", "augment.crop_area=0.01")[1] == 64


def test_the_order_is_a_function_of_seed_and_epoch():
    assert (epoch_order(100, 1, 0) == epoch_order(100, 1, 0)).all()
    assert (epoch_order(100, 1, 0) != epoch_order(100, 1, 1)).any()
    assert (epoch_order(100, 1, 0) != epoch_order(100, 2, 0)).any()


def test_the_rate_rises_then_falls_to_nothing():
    recipe = resolve("article", ["learning_rate=1", "warmup_epochs=1", "epochs=10"])
    rates = [learning_rate(recipe, step, 20) for step in range(200)]
    assert rates[0] == pytest.approx(1 / 20, rel=1e-3)
    assert max(rates) == pytest.approx(rates[19])
    assert all(a > b for a, b in pairwise(rates[19:]))
    assert rates[-1] < 1e-3
    constant = resolve("article", ["schedule=constant", "warmup_epochs=0", "learning_rate=0.5"])
    assert {learning_rate(constant, step, 20) for step in (0, 50, 199)} == {0.5}


def test_networks_have_the_documented_shape():
    from pawcast.models import build

    article = build.build_model(resolve("article"))
    assert article.count_params() == 3_453_121
    assert [type(layer).__name__ for layer in article.layers].count("Conv2D") == 4
    model = build.build_model(resolve("smoke"))
    out = np.asarray(model(np.random.default_rng(0).random((3, 64, 64, 3), np.float32)))
    assert out.shape == (3, 1)
    assert ((out > 0) & (out < 1)).all()


def test_the_rate_of_a_frozen_backbone_is_its_own_and_the_rest_begins_after_it():
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


def made(recipe: str = "smoke", *settings: str):
    from pawcast.models import build
    from pawcast.training import optimizers

    config = resolve(recipe, list(settings))
    network = build.build_model(config, "bfloat16" if config.precision == "bfloat16" else "float32")
    return network, optimizers.build_optimizer(config, network)


def state(epochs: int, **change) -> TrainState:
    return TrainState(epochs_done=epochs, history={"val_acc": [0.5] * epochs}, best_epoch=0, **change)


def leave(store, epochs: int, network, optimizer) -> None:
    from pawcast.models import weights as files

    weights = files.dump(network)
    checkpoint.save(store, "run", state(epochs), weights, weights, optimizer)


def test_a_checkpoint_brings_back_network_and_optimizer(tmp_path):
    store = open_store(str(tmp_path))
    network, optimizers = made()
    optimizers.apply([np.ones(v.shape, np.float32) for v in network.trainable_variables], network.trainable_variables)
    leave(store, 3, network, optimizers)
    found, files = checkpoint.load_latest(store, "run")
    assert found.epochs_done == 3
    other, fresh = made()
    checkpoint.restore(other, fresh, files)
    for a, b in zip([*network.weights, *optimizers.variables], [*other.weights, *fresh.variables], strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_an_epochs_line_tells_what_was_measured(capsys):
    show = import_job("train").show

    def line(row: dict[str, float]) -> str:
        progress = ProgressUpdate(epoch=1, step=5, steps=5, photos_per_second=376, finished=row)
        show(progress, 9, lambda *stage, **unit: None)
        return " ".join(capsys.readouterr().err.split())

    row = {"loss": 0.5, "acc": 0.75, "seconds": 12.0, "validation_seconds": 0.0}
    assert line(row) == "epoch 2/9 loss 0.5000 acc 0.7500 12 s 376 photos/s"
    validated = "epoch 2/9 loss 0.5000 acc 0.7500 val_loss 0.4000 val_acc 0.8000 12 s 376 photos/s"
    assert line({**row, "val_acc": 0.8, "val_loss": 0.4}) == validated


def test_a_checkpoint_before_the_first_validation_has_no_best_weights_yet(tmp_path):
    store = open_store(str(tmp_path))
    _, optimizers = made()
    unvalidated = TrainState(epochs_done=1, history={"loss": [0.7], "val_acc": [None]}, best_epoch=-1)
    checkpoint.save(store, "run", unvalidated, b"weights", b"", optimizers)
    found, files = checkpoint.load_latest(store, "run")
    assert (found.history, found.best_epoch) == (unvalidated.history, -1)
    assert files[checkpoint.BEST] == b""


@pytest.mark.parametrize("harm", ["cut", "lost", "no state", "no json"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path, harm):
    store = open_store(str(tmp_path))
    assert checkpoint.load_latest(store, "run") is None
    network, optimizers = made()
    for epochs in (1, 2, 3):
        leave(store, epochs, network, optimizers)
    folder = "runs/run/checkpoints/"
    assert sorted({key.split("/")[3] for key in store.list(folder)}) == ["000002", "000003"]
    newest = f"{folder}000003/"
    if harm == "cut":
        store.put(newest + "optimizer.npz", store.get(newest + "optimizer.npz")[:-1])
    elif harm == "lost":
        store.delete(newest + "best.weights.h5")
    elif harm == "no state":
        store.delete(newest + "state.json")
    else:
        store.put(newest + "state.json", b"{")
    assert checkpoint.load_latest(store, "run")[0].epochs_done == 2
    # The epoch is done again, and whole this time.
    leave(store, 3, network, optimizers)
    assert checkpoint.load_latest(store, "run")[0].epochs_done == 3


def test_the_best_epoch_is_the_first_best_one_of_the_latest_size():
    recipe = resolve("article", ["train_sizes=[[0.5, 64], [1, 96]]", "epochs=4"])
    assert best_epoch(recipe, [0.9]) == 0
    assert best_epoch(recipe, [0.9, 0.8]) == 0
    assert best_epoch(recipe, [0.9, 0.8, 0.7]) == 2
    assert best_epoch(recipe, [0.9, 0.8, 0.7, 0.7]) == 2


def test_the_best_epoch_is_a_validated_one():
    recipe = resolve("article", ["train_sizes=[[0.5, 64], [1, 96]]", "epochs=8", "validate_every=3"])
    assert best_epoch(recipe, []) == best_epoch(recipe, [None, None]) == -1
    assert best_epoch(recipe, [None, None, 0.9]) == 2
    # Larger photos, not yet validated: the smaller ones' best stays.
    assert best_epoch(recipe, [None, None, 0.9, None, None]) == 2
    assert best_epoch(recipe, [None, None, 0.9, None, None, 0.7]) == 5
    assert best_epoch(recipe, [None, None, 0.9, None, None, 0.7, None, 0.7]) == 5


@pytest.mark.parametrize(
    ("every", "patience", "val_acc", "ends_after"),
    [
        (1, 2, [0.5, 0.6, 0.6, 0.6, 0.6, 0.6], 4),
        (1, 0, [0.5, 0.6, 0.6, 0.6, 0.6, 0.6], None),
        # Two epochs are over after the fourth, but the fifth might be better: nobody knows before the sixth.
        (3, 2, [None, None, 0.6, None, None, 0.6, None, None], 6),
        (2, 4, [None, 0.6, None, 0.5, None, 0.5, None, 0.7], 6),
        (2, 5, [None, 0.6, None, 0.5, None, 0.5, None, 0.7, None], None),
        (4, 2, [None, None, None, 0.5, None], None),
    ],
)
def test_patience_counts_epochs_and_ends_a_run_after_a_validated_one(every, patience, val_acc, ends_after):
    recipe = resolve("smoke", ["epochs=30", f"patience={patience}", f"validate_every={every}"])

    def ends(done: int) -> bool:
        past = val_acc[:done]
        return out_of_patience(
            recipe, TrainState(epochs_done=done, history={"val_acc": past}, best_epoch=best_epoch(recipe, past))
        )

    assert next((done for done in range(len(val_acc) + 1) if ends(done)), None) == ends_after


def test_weights_decay_only_where_they_multiply():
    network, optimizers = made("article", "optimizer=sgd", "weight_decay=0.1", "model=residual", "image_size=32")
    before = [np.asarray(v) for v in network.trainable_variables]
    optimizers.learning_rate.assign(0.5)
    optimizers.apply([np.zeros(v.shape, np.float32) for v in network.trainable_variables], network.trainable_variables)
    for variable, old in zip(network.trainable_variables, before, strict=True):
        factor = 0.95 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(np.asarray(variable), old * factor, rtol=1e-6)


def test_depth_adds_residual_pairs_to_each_stage():
    shallow, deep = (made("fast", f"depth={depth}")[0] for depth in (1, 3))
    sums = [sum(type(layer).__name__ == "Add" for layer in network.layers) for network in (shallow, deep)]
    assert sums == [4, 12]
    # Two more pairs of 3x3 convolutions in each stage, if nothing else counted.
    assert deep.count_params() - shallow.count_params() > 2 * 2 * 9 * sum(n * n for n in (32, 64, 128, 256))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_muon_steps_are_orthogonal_and_the_rest_is_adamws(precision):
    network, optimizers = made(
        "article", "optimizer=muon", "momentum=0.95", "model=residual", "image_size=32", f"precision={precision}"
    )
    before = [np.asarray(v) for v in network.trainable_variables]
    random = np.random.default_rng(0)
    optimizers.learning_rate.assign(0.1)
    gradients = [random.normal(size=v.shape).astype(np.float32) for v in network.trainable_variables]
    optimizers.apply(gradients, network.trainable_variables)
    orthogonal = 0
    for variable, old, gradient in zip(network.trainable_variables, before, gradients, strict=True):
        step = (old - np.asarray(variable)) / 0.1
        if variable.ndim in (2, 4) and variable.shape[-2] != 3 and "head" not in variable.path:
            matrix = step.reshape(-1, step.shape[-1])
            values = np.linalg.svd(matrix / (0.2 * max(matrix.shape) ** 0.5), compute_uv=False)
            # Five steps of the iteration bring them near one, not onto it.
            assert 0.5 < values.min() <= values.max() < 1.3, variable.path
            orthogonal += 1
        else:
            # AdamW's first step is the sign.
            np.testing.assert_allclose(step, np.sign(gradient), atol=0.1)
    assert orthogonal == 16


def test_a_step_is_taken_apart_without_changing_anything():
    from pawcast.training import timing
    from pawcast.training.collective import Collective
    from pawcast.training.step import TrainStep

    network, optimizers = made("smoke", "image_size=32", "batch_size=16")
    steps = TrainStep(resolve("smoke", ["image_size=32", "batch_size=16"]), network, optimizers, Collective(0, 1))
    before = [weight.numpy() for weight in [*network.weights, *optimizers.variables]]
    batch = next(make_feed(40, 16, 0, 1).training_batches(epoch=0))
    parts = timing.measure(steps, batch, 0, seconds=5.0, waiting=0.5)
    assert parts.photos == 16
    assert parts.seconds == pytest.approx(5)
    assert (parts.waiting, parts.gradients) == (0.5, 0)
    assert 0 < parts.augmentation < parts.network
    assert str(parts).startswith("a step of 16 photos takes 5.000 s: network ")
    for old, new in zip(before, [*network.weights, *optimizers.variables], strict=True):
        assert np.array_equal(old, new.numpy())


@pytest.mark.parametrize("world", [2, 3])
def test_dropout_drops_of_a_photo_the_same_on_whichever_rank(world):
    import tensorflow as tf

    from pawcast.models.layers import dropout

    network, _ = made("smoke", "image_size=32", "dropout=0.4")
    layer = next(layer for layer in network.layers if isinstance(layer, dropout.Dropout))
    ones = np.ones((10, *layer.output.shape[1:]), np.float32)
    call = tf.function(lambda x: layer(x, training=True))

    def dropped(step: int, first: int, last: int) -> np.ndarray:
        dropout.set_batch_position(network, 0, step, first, 10)
        return call(tf.constant(ones[first:last])).numpy()

    whole = dropped(5, 0, 10)
    bounds = [10 * rank // world for rank in range(world + 1)]
    parts = [dropped(5, first, last) for first, last in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert set(np.unique(whole)) == {np.float32(0), np.float32(1 / np.float32(0.6))}
    assert (whole == 0).mean() == pytest.approx(0.4, abs=0.05)
    # Other photos and other steps, other masks.
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(dropped(6, 0, 10), whole)
    assert np.array_equal(layer(ones, training=False), ones)


def test_batch_normalization_is_keras_own_in_fewer_passes():
    import keras
    import tensorflow as tf

    from pawcast.models.layers.batch_norm import SyncBatchNorm

    rng = np.random.default_rng(0)
    # Few values a channel, where Bessel's correction of the variance would show.
    x = tf.constant(rng.normal(3, 2, (2, 3, 2, 5)).astype(np.float32))
    found = []
    for kind in (SyncBatchNorm, keras.layers.BatchNormalization):
        layer = kind(momentum=0.8)
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 5))
        layer.beta.assign(np.linspace(-1, 1, 5))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(y))
        slopes = tape.gradient(loss, [x, *layer.trainable_variables])
        found.append([y, *slopes, *layer.non_trainable_variables, layer(x, training=False)])
        layer.trainable = False
        found[-1].append(layer(x, training=True))
    for own, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(np.asarray(own), np.asarray(theirs), atol=1e-5, rtol=1e-4)
