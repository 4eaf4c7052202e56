"""What file names tell: a photo's class, and the order of photos."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawcast.data import sources
from pawcast.data.sources import labels
from tests.support.cases import case
from tests.support.sources import CLASSES


@pytest.mark.parametrize(
    ("member", "label"),
    [
        ("cat.7.jpg", 0),
        ("train/dog.12.jpg", 1),
        ("CAT_7.JPG", 0),
        ("Dog7.png", 1),
        ("cats/7.jpg", 0),
        ("train/Dogs/x.jpg", 1),
        ("PetImages/Cat/3.jpg", 0),
        ("dogs/cat.1.jpg", 0),
        ("cats/dogs/1.jpg", 1),
        ("7.jpg", -1),
        ("train/7.jpg", -1),
        ("cattle.7.jpg", -1),
        ("category/7.jpg", -1),
        ("hotdog.jpg", -1),
    ],
)
def test_a_label_is_the_names_first_word_else_the_nearest_folders(member, label):
    assert labels.label_from_path(member, CLASSES) == label


@pytest.mark.parametrize(
    ("member", "label"),
    [
        ("кошка.1.jpg", 0),
        ("Кошка/1.jpg", 0),
        ("maine-coon.12.jpg", 1),
        ("Maine-Coon (3).jpg", 1),
        ("maine-coon/1.jpg", 1),
        ("cafe\u0301.1.jpg", 2),
        ("CAFÉ/1.jpg", 2),
        ("кот.1.jpg", -1),
        ("maine.1.jpg", -1),
    ],
)
def test_classes_of_any_script_and_of_several_words(member, label):
    assert labels.label_from_path(member, ["кошка", "maine-coon", "café"]) == label


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=20))
def test_natural_order_is_numeric_order(numbers):
    in_order = sorted((f"cat.{n}.jpg" for n in numbers), key=sources.natural_key)
    assert in_order == [f"cat.{n}.jpg" for n in sorted(numbers)]


def test_only_ids_that_clash_keep_their_extension():
    assert labels.photo_ids(["1.jpg", "4.jpg", "4.png", "Cat/4.jpg"]) == ["1", "4.jpg", "4.png", "Cat/4"]
    names = ["a.jpg", "a.png", "a.jpg.png", "b.jpg"]
    assert labels.photo_ids(names) == ["a.jpg", "a.png", "a.jpg.png", "b"]


def test_a_stray_copy_in_another_format_leaves_the_other_ids_as_they_are():
    ids = [photo.id for photo in sources.scan(str(case("stray.zip"))).photos]
    assert ids == ["1", "2", "4.jpg", "4.png", "5", "6", "8", "9", "10"]
