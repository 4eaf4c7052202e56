"""The split: exact, stratified, and a function of the photos and the seed alone."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawcast.data import sources
from pawcast.data.inspect import ImageRecord
from pawcast.data.sources import Photo
from pawcast.data.split import assign, rank, split_photos
from pawcast.errors import DataError
from pawcast.vision.decode import ImageHeader
from tests.support.files import make_zip


def identities(count: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(start + i).encode()).hexdigest() for i in range(count)]


def two_classes(cats: int, dogs: int) -> dict[str, int]:
    return dict.fromkeys(identities(cats), 0) | dict.fromkeys(identities(dogs, start=10**6), 1)


def split_of(labels, copies=None, *, test_size=100, val_fraction=0.25, seed=0):
    units = {identity: {label: (copies or {}).get(identity, 1)} for identity, label in labels.items()}
    return assign(units, test_size=test_size, val_fraction=val_fraction, seed=seed)


def records_of(path: str, classes: tuple[str, ...] = ()) -> list[ImageRecord]:
    photos = sources.scan(path, classes).photos
    header = ImageHeader("JPEG", "RGB", 1, 1)
    return [
        ImageRecord(path, photo, hashlib.sha256(data).hexdigest(), len(data), header, (b"", b""))
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
        with pytest.raises(DataError, match="Copies and groups of photos stay in one split"):
            split_of(labels, groups, **options)
    else:
        assert Counter(split_of(labels, groups, **options).values()) == Counter(
            {"test": 2 * tests, "val": different, "train": different}
        )


def test_groups_larger_than_the_validation_share_of_their_class_are_refused():
    labels = two_classes(5, 5)
    with pytest.raises(DataError, match="1 more 0 photos needed, and no group fits"):
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


def record(name: str, label: int, content: str = "", group: str = "", split: str = "") -> ImageRecord:
    photo = Photo(name, f"{name}.jpg", f"{name}.jpg", label, group, split)
    sha256 = hashlib.sha256((content or name).encode()).hexdigest()
    return ImageRecord("a.zip", photo, sha256, 1, ImageHeader("JPEG", "RGB", 1, 1), (b"", b""))


def names_by_split(records: list[ImageRecord], **options: object) -> dict[str, list[str]]:
    sizes = {"test_size": 0, "val_fraction": 0.25, "seed": 0, **options}
    splits = split_photos(records, ["cat", "dog"], **sizes)  # type: ignore[arg-type]
    return {split: [record.photo.id for record in photos] for split, photos in splits.items()}


def in_groups(sizes: list[int]) -> list[ImageRecord]:
    """Groups of cats and as many groups of dogs, of these sizes."""
    return [
        record(f"{name}.{group}.{i}", label, group=f"{name} {group}")
        for label, name in enumerate(("cat", "dog"))
        for group, size in enumerate(sizes)
        for i in range(size)
    ]


@given(st.lists(st.integers(1, 6), min_size=12, max_size=30), st.integers(0, 12), st.integers(0, 99))
def test_a_group_stays_in_one_split_and_no_split_could_take_another_group(sizes, test_size, seed):
    records = in_groups(sizes)
    splits = names_by_split(records, test_size=2 * test_size, seed=seed)
    homes: dict[str, set[str]] = {}
    for split, ids in splits.items():
        for id_ in ids:
            homes.setdefault(id_.rpartition(".")[0], set()).add(split)
    assert len(homes) == 2 * len(sizes)
    assert all(len(split) == 1 for split in homes.values())
    wanted = {"test": test_size, "val": round((2 * sum(sizes) - 2 * test_size) * 0.25) / 2}
    for name, label in (("cat", 0), ("dog", 1)):
        in_train = [size for group, size in enumerate(sizes) if homes[f"{name}.{group}"] == {"train"}]
        for split, photos in wanted.items():
            missing = photos - sum(id_.startswith(name) for id_ in splits[split])
            assert missing > -1
            assert all(size > missing - 1 for size in in_train), (split, label)


def test_groups_of_one_photo_are_split_as_without_groups():
    alone = [record(f"{name}.{i}", label, group=f"{name}{i}") for label, name in enumerate("ab") for i in range(40)]
    ungrouped = [one._replace(photo=one.photo._replace(group="")) for one in alone]
    assert names_by_split(alone, test_size=20) == names_by_split(ungrouped, test_size=20)


def test_copies_connect_their_groups():
    records = [*in_groups([2] * 20), record("copy", 0, content="cat.3.1", group="cat 5")]
    homes = {id_: split for split, ids in names_by_split(records, test_size=8).items() for id_ in ids}
    assert len({homes[id_] for id_ in ("cat.3.0", "cat.3.1", "copy", "cat.5.0", "cat.5.1")}) == 1


def test_a_group_may_hold_several_classes():
    records = [record(f"{i}.{label}", label, group=f"litter {i}") for i in range(20) for label in (0, 1)]
    splits = names_by_split(records, test_size=8)
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 24, "val": 8, "test": 8, "unlabelled": 0}
    assert {id_.partition(".")[0] for id_ in splits["test"]}.isdisjoint(
        id_.partition(".")[0] for id_ in splits["train"] + splits["val"]
    )


def test_groups_too_large_for_the_validation_split_are_refused():
    with pytest.raises(DataError, match=r"Copies and groups.*5 more cat photos needed, and no group fits.*--group"):
        names_by_split(in_groups([10, 10]))


def in_folders(**photos: int) -> list[ImageRecord]:
    """Cats and as many dogs in the folders of these splits."""
    return [
        record(f"{split}.{label}.{i}", label, split=split)
        for split, count in photos.items()
        for label in (0, 1)
        for i in range(count)
    ]


def test_the_folders_of_a_source_are_its_splits():
    splits = names_by_split(in_folders(train=6, val=3, test=2), test_size=1_000, split_folders=True)
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 12, "val": 6, "test": 4, "unlabelled": 0}
    assert all(id_.startswith(split) for split, ids in splits.items() for id_ in ids)
    assert splits["train"] != sorted(splits["train"])


def test_without_a_folder_of_validation_photos_a_share_of_train_validates():
    splits = names_by_split(in_folders(train=8, test=2), test_size=1_000, split_folders=True)
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 12, "val": 4, "test": 4, "unlabelled": 0}
    assert all(id_.startswith("train") for id_ in splits["train"] + splits["val"])


def test_photos_outside_of_the_folders_of_splits_are_named():
    outside = [record(f"extra.{i}", 0) for i in range(4)]
    with pytest.raises(
        DataError, match=r"4 of 16 photos.*extra\.0\.jpg, extra\.1\.jpg, extra\.2\.jpg, ….*--split-folders"
    ):
        names_by_split([*in_folders(train=4, val=2), *outside], split_folders=True)


def test_a_folder_of_a_split_that_lacks_a_class_is_refused():
    records = [one for one in in_folders(train=4, val=2) if not one.photo.id.startswith("val.1")]
    with pytest.raises(DataError, match="no usable photo of class dog in val"):
        names_by_split(records, split_folders=True)


def test_all_photos_under_two_labels_are_named_at_once():
    records = in_groups([1] * 9)
    twice = [record(f"dog.copy{i}", 1, content=f"cat.{i}.0") for i in range(3)]
    with pytest.raises(DataError, match="3 photos have two labels") as caught:
        names_by_split([*records, *twice])
    for i in range(3):
        assert f"cat.{i}.0.jpg (cat) = dog.copy{i}.jpg (dog)" in str(caught.value)
