"""The split: exact, stratified, and a function of the photos and the seed alone."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawcast.data import sources
from pawcast.data.inspect import ImageRecord
from pawcast.data.split import assign, rank, split_photos
from pawcast.errors import DataError
from pawcast.vision.decode import ImageHeader
from tests.support.files import make_zip


def identities(count: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(start + i).encode()).hexdigest() for i in range(count)]


def two_classes(cats: int, dogs: int) -> dict[str, int]:
    return dict.fromkeys(identities(cats), 0) | dict.fromkeys(identities(dogs, start=10**6), 1)


def split_of(labels, copies=None, *, test_size=100, val_fraction=0.25, seed=0):
    copies = copies or dict.fromkeys(labels, 1)
    return assign(labels, copies, test_size=test_size, val_fraction=val_fraction, seed=seed)


def records_of(path: str, classes: tuple[str, ...] = ()) -> list[ImageRecord]:
    photos = sources.scan(path, classes).photos
    header = ImageHeader("JPEG", "RGB", 1, 1)
    return [
        ImageRecord(path, photo, hashlib.sha256(data).hexdigest(), len(data), header, b"")
        for photo, data in zip(photos, sources.read(path, photos), strict=True)
    ]


def test_the_articles_protocol_is_exact_and_stratified():
    labels = two_classes(12_500, 12_500)
    split = split_of(labels, test_size=1_000)
    assert Counter((name, labels[i]) for i, name in split.items()) == {
        ("test", 0): 500,
        ("test", 1): 500,
        ("val", 0): 3_000,
        ("val", 1): 3_000,
        ("train", 0): 9_000,
        ("train", 1): 9_000,
    }


SMALL_CLASSES = st.tuples(st.integers(8, 60), st.integers(8, 60), st.integers(0, 8), st.just(0.25))
LARGER_CLASSES = st.tuples(
    st.integers(20, 120), st.integers(20, 120), st.integers(0, 20), st.sampled_from([0.1, 0.2, 0.25, 0.5])
)


@settings(max_examples=120)
@given(SMALL_CLASSES | LARGER_CLASSES, st.integers(0, 2**31 - 1))
def test_sizes_are_exact_and_shares_are_proportional(case, seed):
    cats, dogs, test_size, val_fraction = case
    labels = two_classes(cats, dogs)
    split = split_of(labels, test_size=test_size, val_fraction=val_fraction, seed=seed)
    assert split.keys() == labels.keys()
    sizes = Counter(split.values())
    total = cats + dogs
    assert sizes["test"] == test_size
    assert sizes["val"] == round((total - test_size) * val_fraction)
    for name, size in sizes.items():
        cats_in_split = sum(1 for i, split_name in split.items() if split_name == name and labels[i] == 0)
        assert abs(cats_in_split - size * cats / total) < 2


@given(st.randoms(use_true_random=False), st.integers(8, 60), st.integers(8, 60), st.integers(0, 8), st.integers(0, 9))
def test_the_order_of_photos_does_not_matter(shuffler, cats, dogs, test_size, seed):
    labels = two_classes(cats, dogs)
    items = list(labels.items())
    shuffler.shuffle(items)
    assert split_of(dict(items), test_size=test_size, seed=seed) == split_of(labels, test_size=test_size, seed=seed)


def test_equal_seeds_give_equal_splits_and_another_seed_another_split():
    labels = two_classes(200, 200)
    assert split_of(labels, seed=1) == split_of(labels, seed=1)
    moved = sum(split_of(labels, seed=1)[i] != split_of(labels, seed=2)[i] for i in labels)
    assert moved > 100


def test_the_split_does_not_follow_the_order_of_hashes():
    """If identities were taken in sorted order, the test photos would be those that sort first."""
    labels = two_classes(200, 200)
    test_photos = {i for i, name in split_of(labels).items() if name == "test"}
    assert len(test_photos & set(sorted(labels)[:100])) < 60


@pytest.mark.parametrize(("photos", "test_size", "seed"), [(100, 40, 0), (40, 10, 3)])
def test_copies_count_as_photos_and_stay_together(photos, test_size, seed):
    labels = two_classes(photos, photos)
    copies = {identity: 1 + (n % 3 == 0) for n, identity in enumerate(labels)}
    split = split_of(labels, copies, test_size=test_size, seed=seed)
    sizes = Counter[str]()
    for identity, name in split.items():
        sizes[name] += copies[identity]
    total = sum(copies.values())
    val = round((total - test_size) * 0.25)
    assert sizes == {"test": test_size, "val": val, "train": total - test_size - val}


@given(different=st.integers(2, 30), tests=st.integers(0, 10), copies=st.integers(1, 5), seed=st.integers(0, 2**31 - 1))
def test_groups_of_copies_are_refused_exactly_when_they_do_not_fit(different, tests, copies, seed):
    """Half of each class's other photos validate, and that must be a whole number of groups."""
    labels = two_classes(different + tests, different + tests)
    groups = dict.fromkeys(labels, copies)
    options = {"test_size": 2 * tests * copies, "val_fraction": 0.5, "seed": seed}
    if different % 2 and copies > 1:
        with pytest.raises(DataError, match="Copies of a photo stay in one split"):
            split_of(labels, groups, **options)
    else:
        assert Counter(split_of(labels, groups, **options).values()) == Counter(
            {"test": 2 * tests, "val": different, "train": different}
        )


def test_groups_larger_than_the_validation_share_of_their_class_are_refused():
    labels = two_classes(5, 5)
    with pytest.raises(DataError, match="1 more 0 photos needed, and no group of copies fits"):
        split_of(labels, dict.fromkeys(labels, 2), test_size=0, val_fraction=0.1)
    split = split_of(labels, dict.fromkeys(labels, 2), test_size=0, val_fraction=0.2)
    assert [labels[i] for i, name in split.items() if name == "val"] in ([0, 1], [1, 0])


@pytest.mark.parametrize(
    ("cats", "dogs", "test_size", "val_fraction"),
    [
        (3, 100, 100, 0.25),
        (10, 10, 20, 0.25),
        (10, 10, 30, 0.25),
        (1, 100, 0, 0.25),
        (30, 1, 10, 0.25),
        (2, 2, 2, 0.5),
        (20, 20, 0, 1.0),
    ],
)
def test_a_class_without_a_photo_to_train_or_validate_on_is_refused(cats, dogs, test_size, val_fraction):
    with pytest.raises(DataError, match="too few photos"):
        split_of(two_classes(cats, dogs), test_size=test_size, val_fraction=val_fraction)


def test_without_test_and_validation_photos_all_are_for_training():
    labels = two_classes(5, 5)
    assert set(split_of(labels, test_size=0, val_fraction=0.0).values()) == {"train"}


def test_photos_come_in_the_order_of_their_ranks():
    """The order of rows in the shards of a published dataset."""
    labels = two_classes(60, 50)
    assert list(split_of(labels, test_size=20, seed=3)) == sorted(labels, key=lambda identity: rank(3, identity))


def test_rank_is_fixed():
    """A published dataset's split must come out the same in every later version."""
    assert rank(7, "ab").hex() == hashlib.sha256(b"7:ab").hexdigest()


def test_the_split_of_a_small_source_is_fixed(tmp_path):
    """The ids of every split, in order, as the first release assigned them. Never change digests.

    Some photos are copies. The files hold text, so that the digests depend on no JPEG encoder.
    """
    labelled = {f"train/{name}.{i}.jpg": f"{name} {i % 27}".encode() for name in ("cat", "dog") for i in range(30)}
    unlabelled = {f"test1/{i}.jpg": str(i).encode() for i in range(5)}
    records = [
        *records_of(make_zip(tmp_path / "train.zip", labelled), ("cat", "dog")),
        *records_of(make_zip(tmp_path / "test1.zip", unlabelled)),
    ]
    splits = split_photos(records, ["cat", "dog"], test_size=12, val_fraction=0.25, seed=3)
    ids = {name: [record.photo.id for record in split] for name, split in splits.items()}
    assert " ".join(ids["test"]) == "cat.19 dog.5 cat.9 cat.6 dog.16 cat.0 cat.27 dog.2 dog.29 dog.3 cat.4 dog.12"
    assert {name: hashlib.sha256(" ".join(split).encode()).hexdigest() for name, split in ids.items()} == {
        "train": "f4b8c21143c3f02d303a87c63d8fb795fc663480d1e3ae5e610d3f867936f86e",
        "val": "c26397a4d11f0185b2247c08f1487655733667aefa31e5f44c9f30ba1c3391c7",
        "test": "c13a58d3a16181d1b9f00f6d07cc2315f003dffcd0c83f379af3f8fab5975070",
        "unlabelled": "48f2aad9b93074449097ae2c2cae596ca0f4eaea08f94feaf8139f1f5f96a02c",
    }
