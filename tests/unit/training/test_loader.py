"""Which photo comes in which batch, on which rank, and how large."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.recipes import resolve
from pawcast.training.loader import BatchLoader, epoch_order
from tests.support.training import numbered_loader, photo_numbers


@pytest.mark.parametrize("photos", [7, 64, 300])
@pytest.mark.parametrize("batch", [5, 7])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_slices_of_all_ranks_make_up_the_batch_of_one_worker(photos, batch, world):
    alone = list(numbered_loader(photos, batch).training_batches(epoch=2))
    ranks = [list(numbered_loader(photos, batch, rank, world).training_batches(epoch=2)) for rank in range(world)]
    order = epoch_order(photos, 0, 2)
    for step, whole in enumerate(alone):
        slices = [rank[step] for rank in ranks]
        together = [number for part in slices for number in photo_numbers(part)]
        assert together == photo_numbers(whole) == order[step * batch : (step + 1) * batch].tolist()
        counts = [len(photo_numbers(part)) for part in slices]
        assert max(counts) - min(counts) <= 1
        assert all(part.photos == len(together) for part in slices)
        for part in slices:
            # A photo of weight 0 is there only if the slice has no other.
            assert len(part.pixels) == max(len(photo_numbers(part)), 1)
            own = part.weights > 0
            assert part.labels[own].tolist() == [number % 2 for number in photo_numbers(part)]
    assert sorted(number for step in alone for number in photo_numbers(step)) == list(range(photos))


@pytest.mark.parametrize("ahead", [2, 4, 9])
def test_batches_come_in_order_however_many_are_made_ahead(ahead):
    def content(loader):
        batches = loader.training_batches(epoch=1)
        return [[part.tolist() for part in (batch.pixels, *batch.augmentation, *batch[2:])] for batch in batches]

    assert content(numbered_loader(40, 8, ahead=ahead)) == content(numbered_loader(40, 8))


def test_a_photo_has_the_same_augmentation_on_any_rank():
    def rows(batch):
        return zip(photo_numbers(batch), *batch.augmentation, strict=True)

    alone = {i: params for batch in numbered_loader(40, 8).training_batches(0) for i, *params in rows(batch)}
    for rank in (0, 1):
        for batch in numbered_loader(40, 8, rank, 2).training_batches(0):
            for number, *params in rows(batch):
                for own, expected in zip(params, alone[number], strict=True):
                    np.testing.assert_array_equal(own, expected)


def test_validation_yields_all_photos_in_order_and_in_the_size_asked_for():
    loader = numbered_loader(23, 5)
    assert [i for batch in loader.validation_batches(32) for i in photo_numbers(batch)] == list(range(23))
    assert {batch.pixels.shape[1:] for batch in loader.validation_batches(40)} == {(40, 40, 3)}


def test_photos_grow_with_the_epochs_and_are_reduced_no_further_than_crops_need():
    recipe = resolve("article", ["image_size=64", "train_sizes=[[0.5, 32], [1, 48]]", "epochs=4"])
    assert [recipe.size_at(epoch) for epoch in range(4)] == [32, 32, 48, 48]
    assert recipe.decode_size == 64
    blocks = [np.zeros((6, 64, 64, 3), np.uint8)]

    def sides(*settings: str) -> list[int]:
        changed = resolve(
            "article", [f"train_sizes={[list(pair) for pair in recipe.train_sizes]}", "epochs=4", *settings]
        )
        loader = BatchLoader(blocks, np.arange(6) % 2, changed, 0, 1)
        return [next(iter(loader.training_batches(epoch))).pixels.shape[1] for epoch in (0, 3)]

    assert sides("image_size=64") == [32, 48]
    assert sides("image_size=64", "augment.crop_area=0.35") == [39, 58]
    # Never larger than the decoded photos.
    assert sides("image_size=64", "augment.crop_area=0.01")[1] == 64


def test_the_order_is_a_function_of_seed_and_epoch():
    assert (epoch_order(100, 1, 0) == epoch_order(100, 1, 0)).all()
    assert (epoch_order(100, 1, 0) != epoch_order(100, 1, 1)).any()
    assert (epoch_order(100, 1, 0) != epoch_order(100, 2, 0)).any()
