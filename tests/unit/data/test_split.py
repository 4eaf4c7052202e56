"""The split: exact, stratified, and a function of the photos and the seed alone."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawcast.data.split import assign, rank
from pawcast.errors import DataError


def identities(count: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(start + i).encode()).hexdigest() for i in range(count)]


def two_classes(cats: int, dogs: int) -> dict[str, int]:
    return dict.fromkeys(identities(cats), 0) | dict.fromkeys(identities(dogs, start=10**6), 1)


def split_of(labels, copies=None, *, test_size=100, val_fraction=0.25, seed=0):
    copies = copies or dict.fromkeys(labels, 1)
    return assign(labels, copies, test_size=test_size, val_fraction=val_fraction, seed=seed)


def test_the_articles_protocol_is_exact_and_stratified():
    labels = two_classes(2_000, 2_000)
    split = split_of(labels, test_size=400)
    assert Counter((name, labels[i]) for i, name in split.items()) == {
        ("test", 0): 200, ("test", 1): 200, ("val", 0): 450, ("val", 1): 450,
        ("train", 0): 1_350, ("train", 1): 1_350,
    }  # fmt: skip


@settings(max_examples=60)
@given(
    st.integers(20, 120), st.integers(20, 120), st.integers(0, 20), st.sampled_from([0.1, 0.2, 0.25, 0.5]),
    st.integers(0, 2**31 - 1),
)  # fmt: skip
def test_sizes_are_exact_and_shares_are_proportional(cats, dogs, test_size, val_fraction, seed):
    labels = two_classes(cats, dogs)
    split = split_of(labels, test_size=test_size, val_fraction=val_fraction, seed=seed)
    assert split.keys() == labels.keys()
    sizes = Counter(split.values())
    total = cats + dogs
    assert sizes["test"] == test_size
    assert sizes["val"] == round((total - test_size) * val_fraction)
    for name, size in sizes.items():
        cats_in_it = sum(1 for i, split_name in split.items() if split_name == name and labels[i] == 0)
        assert abs(cats_in_it - size * cats / total) < 2


@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_order_does_not_matter(shuffler, seed):
    labels = two_classes(40, 30)
    items = list(labels.items())
    shuffler.shuffle(items)
    assert split_of(dict(items), test_size=10, seed=seed) == split_of(labels, test_size=10, seed=seed)


def test_another_seed_splits_otherwise_and_the_same_seed_alike():
    labels = two_classes(200, 200)
    assert split_of(labels, seed=1) == split_of(labels, seed=1)
    moved = sum(split_of(labels, seed=1)[i] != split_of(labels, seed=2)[i] for i in labels)
    assert moved > 100


def test_the_split_does_not_follow_the_names_order():
    """Were identities taken as they sort, the held out ones would be those that sort first."""
    labels = two_classes(200, 200)
    held = {i for i, name in split_of(labels).items() if name == "test"}
    assert len(held & set(sorted(labels)[:100])) < 60


def test_copies_count_as_photos_and_stay_together():
    labels = two_classes(100, 100)
    copies = {identity: 1 + (n % 3 == 0) for n, identity in enumerate(labels)}
    split = split_of(labels, copies, test_size=40)
    photos = Counter[str]()
    for identity, name in split.items():
        photos[name] += copies[identity]
    total = sum(copies.values())
    assert photos == {"test": 40, "val": round((total - 40) * 0.25), "train": total - 40 - photos["val"]}


@pytest.mark.parametrize(
    ("cats", "dogs", "test_size", "val_fraction"),
    [(3, 100, 100, 0.25), (10, 10, 20, 0.25), (10, 10, 30, 0.25), (1, 100, 0, 0.25), (2, 2, 2, 0.5), (20, 20, 0, 1.0)],
)
def test_a_class_without_a_photo_to_train_or_validate_on_is_refused(cats, dogs, test_size, val_fraction):
    with pytest.raises(DataError, match="too few photos"):
        split_of(two_classes(cats, dogs), test_size=test_size, val_fraction=val_fraction)


def test_copies_that_fit_nowhere_are_refused_like_too_few_photos():
    labels = two_classes(5, 5)
    copies = dict.fromkeys(labels, 2)
    try:
        split = split_of(labels, copies, test_size=0, val_fraction=0.1)
    except DataError:
        return
    assert {labels[i] for i, name in split.items() if name == "val"} == {0, 1}


def test_nothing_held_out_and_nothing_to_validate_on_leaves_all_to_train():
    labels = two_classes(5, 5)
    assert set(split_of(labels, test_size=0, val_fraction=0.0).values()) == {"train"}


def test_photos_come_in_the_order_of_their_ranks():
    """The order of rows in the shards of a published dataset."""
    labels = two_classes(60, 50)
    assert list(split_of(labels, test_size=20, seed=3)) == sorted(labels, key=lambda identity: rank(3, identity))


def test_rank_is_fixed_for_ever():
    """A published dataset's split must come out the same in every later version."""
    assert rank(7, "ab").hex() == hashlib.sha256(b"7:ab").hexdigest()
