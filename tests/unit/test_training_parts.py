"""What a step is made of: order, slices, rate, network, checkpoint."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pawcast.devices import configure_tensorflow
from pawcast.errors import IntegrityError
from pawcast.recipe import resolve
from pawcast.training.feed import Feed, epoch_order
from pawcast.training.schedule import learning_rate


def make_feed(photos: int, batch: int, rank: int, world: int) -> Feed:
    """A feed of photos that carry their own index in their first pixel, in uneven blocks."""
    pixels = np.zeros((photos, 32, 32, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(photos) % 256, np.arange(photos) // 256
    blocks = np.split(pixels, sorted({photos // 3, photos // 2}))
    recipe = resolve("article", [f"batch_size={batch}", "image_size=32"])
    return Feed(blocks, np.arange(photos) % 2, recipe, rank, world)


def indices(batch) -> list[int]:
    own = batch.weights > 0
    return (batch.pixels[own, 0, 0, 0].astype(int) + 256 * batch.pixels[own, 0, 0, 1].astype(int)).tolist()


@pytest.mark.parametrize("photos", [7, 64, 300])
@pytest.mark.parametrize("batch", [5, 7])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_ranks_slices_make_up_the_batch_of_one_worker(photos, batch, world):
    alone = list(make_feed(photos, batch, 0, 1).shuffled(epoch=2))
    ranks = [list(make_feed(photos, batch, rank, world).shuffled(epoch=2)) for rank in range(world)]
    order = epoch_order(photos, 0, 2)
    for step, whole in enumerate(alone):
        slices = [rank[step] for rank in ranks]
        together = [index for part in slices for index in indices(part)]
        assert together == indices(whole) == order[step * batch : (step + 1) * batch].tolist()
        assert len({part.pixels.shape for part in slices}) == 1
        assert all(part.photos == len(together) for part in slices)
        for part in slices:
            own = part.weights > 0
            assert part.labels[own].tolist() == [index % 2 for index in indices(part)]
            assert not part.pixels[~own].any()
    assert sorted(i for step in alone for i in indices(step)) == list(range(photos))


def test_a_photo_keeps_its_warp_wherever_it_lands():
    first = {i: t for b in make_feed(40, 8, 0, 1).shuffled(0) for i, t in zip(indices(b), b.transforms, strict=False)}
    for rank in (0, 1):
        for batch in make_feed(40, 8, rank, 2).shuffled(0):
            for index, warp in zip(indices(batch), batch.transforms, strict=False):
                np.testing.assert_array_equal(warp, first[index])


def test_validation_comes_in_order_and_whole():
    seen = [i for batch in make_feed(23, 5, 0, 1).in_order() for i in indices(batch)]
    assert seen == list(range(23))


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


def test_networks_have_the_documented_shape(tmp_path):
    configure_tensorflow(1)
    import keras

    from pawcast import models
    from pawcast.training import checkpoint

    article = models.build(resolve("article"))
    assert article.count_params() == 3_453_121
    assert [type(layer).__name__ for layer in article.layers].count("Conv2D") == 4
    model = models.build(resolve("smoke"))
    out = np.asarray(model(np.random.default_rng(0).random((3, 64, 64, 3), np.float32)))
    assert out.shape == (3, 1)
    assert ((out > 0) & (out < 1)).all()

    def made() -> tuple[keras.Model, keras.Optimizer]:
        network = models.build(resolve("smoke"))
        optimizer = keras.optimizers.RMSprop(0.01, momentum=0.9)
        optimizer.build(network.trainable_variables)
        return network, optimizer

    network, optimizer = made()
    optimizer.apply([np.ones(v.shape, np.float32) for v in network.trainable_variables], network.trainable_variables)
    checkpoint.save(tmp_path, network, optimizer, {"epochs_done": 3})
    other, fresh = made()
    assert checkpoint.restore(tmp_path, other, fresh)["epochs_done"] == 3
    for a, b in zip([*network.weights, *optimizer.variables], [*other.weights, *fresh.variables], strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    (tmp_path / "optimizer.npz").write_bytes(b"cut")
    with pytest.raises(IntegrityError, match="not whole"):
        checkpoint.restore(tmp_path, other, fresh)
