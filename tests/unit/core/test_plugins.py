"""A user's own network and recipe, which the library has never heard of."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pawcast.core import plugins
from pawcast.errors import NotFoundError, UsageError
from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import configure_tensorflow

OWN = """
import keras
from pawcast.recipes.schema import Recipe

def network(recipe):
    pixels = keras.Input((recipe.image_size, recipe.image_size, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(pixels))
    return keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid")(features))

def two_classes(recipe):
    pixels = keras.Input((recipe.image_size, recipe.image_size, 3))
    features = keras.layers.GlobalAveragePooling2D()(pixels)
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(features))

def nested(recipe):
    pixels = keras.Input((recipe.image_size, recipe.image_size, 3))
    first = keras.layers.Conv2D(4, 3, name="first")(pixels)
    backbone = keras.Model(pixels, keras.layers.Conv2D(5, 3, name="second")(first), name="backbone")
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(pixels))
    return keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid", name="head_probability")(pooled))

def no_network(recipe):
    return 3

def mine():
    return Recipe(name="mine", model="own_code:network", image_size=40, epochs=2)

def wrong():
    return Recipe(name="wrong", epochs=0)

number = 3
"""


@pytest.fixture(autouse=True)
def own_code(tmp_path, monkeypatch):
    configure_tensorflow(1)
    (tmp_path / "own_code.py").write_text(OWN)
    (tmp_path / "broken_code.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_code", None)


def test_a_users_recipe_and_network_need_nothing_of_the_library():
    from pawcast.models import build

    recipe = resolve("own_code:mine", ["epochs=3", "augment.zoom=0.1"])
    assert (recipe.name, recipe.epochs, recipe.augment.zoom) == ("mine", 3, 0.1)
    network = build.build_model(recipe)
    out = np.asarray(network(np.random.default_rng(0).random((2, 40, 40, 3), np.float32)))
    assert out.shape == (2, 1)


@pytest.mark.parametrize(
    ("reference", "error", "hint"),
    [
        ("own_code:", UsageError, "package.module:function"),
        ("own code:network", UsageError, "package.module:function"),
        ("own_code:netwerk", UsageError, "one of Recipe, network"),
        ("own_code:number", UsageError, "has no function 'number'"),
        ("no_such_code:network", NotFoundError, "No module 'no_such_code'"),
        ("broken_code:network", UsageError, "ZeroDivisionError"),
    ],
)
def test_a_wrong_reference_is_refused_with_its_reason(reference, error, hint):
    with pytest.raises(error, match=hint):
        plugins.load(reference)


@pytest.mark.parametrize(
    ("function", "hint"),
    [("two_classes", r"\(None, 2\)"), ("no_network", "made no Keras model"), ("mine", "takes 0 positional")],
)
def test_a_network_of_another_kind_is_refused(function, hint):
    from pawcast.models import build

    with pytest.raises(UsageError, match=hint):
        build.build_model(resolve("article", [f"model=own_code:{function}"]))


def test_what_is_no_recipe_is_refused():
    with pytest.raises(UsageError, match=r"Invalid value for `epochs`"):
        resolve("own_code:wrong")
    with pytest.raises(UsageError, match="made no recipe"):
        resolve("builtins:dict")
    with pytest.raises(UsageError, match=r"or package\.module:function"):
        resolve("mine")


def test_a_network_without_a_head_cannot_be_frozen():
    from pawcast.models import build

    network = build.build_model(resolve("smoke"))
    assert [v.path for v in build.head_variables(network)] == ["head_probability/kernel", "head_probability/bias"]
    headless = build.build_model(resolve("own_code:mine"))
    with pytest.raises(UsageError, match="frozen_epochs=0"):
        build.head_variables(headless)


def test_layers_before_the_one_that_fine_tuning_begins_with_stay():
    from pawcast.models import build

    first = "_blocks_4_expand_conv"
    network = build.build_model(resolve("transfer", [f"fine_tune_from={first}"]))
    names = [layer.name for layer in network.layers]
    moving = {v.path.split("/")[0] for v in network.trainable_variables}
    assert min(map(names.index, moving)) == names.index(first)
    assert moving == {layer.name for layer in network.layers[names.index(first) :] if layer.trainable and layer.weights}
    # A network within a network is the backbone; what comes after it is trained.
    network = build.build_model(resolve("article", ["model=own_code:nested", "fine_tune_from=second"]))
    assert [v.path for v in network.trainable_variables][::2] == ["second/kernel", "head_probability/kernel"]
    with pytest.raises(UsageError, match=r"no such layer\. Received: fine_tune_from=secnd.*did you mean 'second'"):
        build.build_model(resolve("article", ["model=own_code:nested", "fine_tune_from=secnd"]))


def test_photos_that_grow_need_a_network_for_any_size():
    from pawcast.models import build

    sizes = "train_sizes=[[0.5,64],[1,96]]"
    with pytest.raises(UsageError, match=r"one size only\. Received: train_sizes with 64, 96 px beside image_size 150"):
        build.build_model(resolve("article", [sizes]))
    build.build_model(resolve("article", ["train_sizes=[[1,150]]"]))
    build.build_model(resolve("fast", [sizes]))
