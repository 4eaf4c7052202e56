"""Scores: the same bits in every batch, mirror images averaged, bfloat16 close by, networks of open size."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.errors import UsageError
from pawcast.inference.compiled import CompiledModel
from pawcast.inference.engine import MAX_BATCH, Engine
from pawcast.recipes import resolve
from pawcast.registry import Parity
from pawcast.runtime import devices
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.preprocess import Preprocessing
from tests.support.served import version

GOOD = Parity(photos=1_000, same_label_share=1.0, max_difference=0.001)
MISSED = Parity(photos=1_000, same_label_share=0.99, max_difference=0.001)


def flat(size: int = 48):
    """Our own kind: convolutions, then dense layers, whose sums are long."""
    configure_tensorflow(2)
    import keras

    from pawcast.models import build

    keras.utils.set_random_seed(3)
    return build.build_model(resolve("article" if size == 150 else "smoke", [f"image_size={size}"]))


def pooled():
    """Residual, with both batch normalizations and squeeze-and-excitation, for photos of any size."""
    configure_tensorflow(2)
    import keras
    from keras import layers

    from pawcast.models.layers.batch_norm import SyncBatchNorm

    keras.utils.set_random_seed(3)
    pixels = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(pixels)
    x = layers.ReLU()(SyncBatchNorm()(x))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    share = layers.Dense(16, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    x = layers.ReLU()(layers.Add()([x, layers.Multiply()([y, share])]))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(x))
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            rng = np.random.default_rng(4)
            layer.set_weights([rng.uniform(0.5, 1.5, 16).astype(np.float32) for _ in range(4)])
    return network


def forked():
    """Two ends of convolutions, neither of which sees all."""
    configure_tensorflow(2)
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    pixels = keras.Input((50, 50, 3))
    x = layers.ReLU()(layers.MaxPooling2D(2)(layers.Conv2D(8, 3)(pixels)))
    y = layers.Conv2D(8, 3, activation="relu")(x)
    both = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling2D()(y)])
    return keras.Model(pixels, layers.Dense(1, activation="sigmoid")(both))


def noise(photos: int, size: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (photos, size, size, 3), np.uint8)


def by_keras(network, pixels: np.ndarray) -> np.ndarray:
    return network(pixels.astype(np.float32) / 255, training=False).numpy()[:, 0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("network", "size"), [(flat, 48), (pooled, 50), (forked, 50)])
def test_a_photo_has_the_same_score_in_every_batch(network, size, precision):
    forward = CompiledModel(network(), Preprocessing(image_size=size), precision)
    photos = noise(MAX_BATCH, size)
    alone = np.concatenate([forward(photo[None]) for photo in photos])
    assert len(set(alone)) > MAX_BATCH // 4
    rng = np.random.default_rng(6)
    for count in range(1, MAX_BATCH + 1):
        chosen = rng.permutation(MAX_BATCH)[:count]
        assert forward(photos[chosen]).tobytes() == alone[chosen].tobytes(), count
    assert forward(photos[:0]).shape == (0,)


@pytest.mark.parametrize(("network", "size"), [(flat, 48), (pooled, 50), (forked, 50)])
def test_emulated_bfloat16_is_as_coarse_as_the_real_one(network, size):
    model, photos = network(), noise(MAX_BATCH, size)
    exact, real, emulated = (
        CompiledModel(model, Preprocessing(image_size=size), *how)(photos)
        for how in (("float32",), ("bfloat16",), ("bfloat16", True))
    )
    away = np.abs(real - exact).mean()
    assert away / 2 < np.abs(emulated - exact).mean() < 2 * away


def test_pixels_are_not_rounded_to_bfloat16():
    """Of a network that only adds up pixels, each of them times a power of two, nothing else is rounded either."""
    configure_tensorflow(2)
    import keras
    from keras import layers

    pixels = keras.Input((4, 4, 3))
    x = layers.Conv2D(1, 4, use_bias=False)(pixels)
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)))
    kernel = np.zeros((4, 4, 3, 1), np.float32)
    kernel[0, 0, 0], kernel[3, 3, 2] = 255 / 16, -255 / 16
    network.set_weights([kernel, np.ones((1, 1), np.float32), np.zeros(1, np.float32)])
    photos = noise(50, 4)
    found = CompiledModel(network, Preprocessing(image_size=4), "bfloat16")(photos)
    np.testing.assert_allclose(found, by_keras(network, photos), atol=2e-6, rtol=0)


def test_rounded_kernels_keep_their_sums():
    """Kernels that see nothing in a photo of one colour see nothing in it in bfloat16 either."""
    configure_tensorflow(2)
    import keras
    from keras import layers

    pixels = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, use_bias=False)(pixels))
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(x))
    kernel = np.random.default_rng(6).normal(size=(3, 3, 3, 16)).astype(np.float32)
    network.set_weights([kernel - kernel.mean((0, 1)), np.full((16, 1), 5, np.float32), np.zeros(1, np.float32)])
    photos = np.broadcast_to(np.arange(5, 250, 5, np.uint8)[:, None, None, None], (49, 8, 8, 3))
    found = CompiledModel(network, Preprocessing(image_size=8), "bfloat16")(photos)
    np.testing.assert_allclose(found, by_keras(network, photos), atol=3e-3, rtol=0)


def test_the_article_has_the_same_scores_in_every_batch():
    """At its full size, where sums are longest."""
    forward = CompiledModel(flat(150), Preprocessing(image_size=150))
    photos = noise(20, 150)
    whole = forward(photos)
    for count in (1, 3, 8, 13):
        assert forward(photos[-count:]).tobytes() == whole[-count:].tobytes(), count


@pytest.mark.parametrize(("network", "size"), [(flat, 48), (pooled, 50), (pooled, 64)])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.01)])
def test_scores_are_those_of_keras(network, size, precision, tolerance):
    model, photos = network(), noise(20, size)
    found = CompiledModel(model, Preprocessing(image_size=size), precision)(photos)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_keras(model, photos), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("network", "size"), [(flat, 48), (pooled, 50), (forked, 50)])
def test_with_mirror_images_the_probability_is_the_mean_of_both(network, size):
    model, photos = network(), noise(20, size)
    forward = CompiledModel(model, Preprocessing(image_size=size, mirror=True))
    both = by_keras(model, photos), by_keras(model, photos[:, :, ::-1])
    assert np.abs(both[0] - both[1]).max() > 1e-3
    found = forward(photos)
    np.testing.assert_allclose(found, np.mean(both, axis=0), atol=1e-6, rtol=0)
    assert forward(photos[7:9]).tobytes() == found[7:9].tobytes()
    np.testing.assert_allclose(forward(photos[:, :, ::-1]), found, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("flags", "asked", "parity", "precision"),
    [
        ("amx_bf16", "auto", {"float32": GOOD, "bfloat16": GOOD}, "bfloat16"),
        ("amx_bf16", "auto", {"float32": GOOD, "bfloat16": MISSED}, "float32"),
        ("amx_bf16", "auto", None, "float32"),
        ("avx2", "auto", {"float32": GOOD, "bfloat16": GOOD}, "float32"),
        ("avx2", "bfloat16", None, "bfloat16"),
        ("amx_bf16", "float32", {"float32": GOOD, "bfloat16": GOOD}, "float32"),
    ],
)
def test_bfloat16_is_served_where_it_is_fast_and_was_found_to_agree(
    tmp_path, monkeypatch, flags, asked, parity, precision
):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(devices, "_CPUINFO", cpuinfo)
    engine = Engine(version(48, parity=parity), flat(), asked)
    assert engine.info["precision"] == precision
    assert engine.predict(noise(3, 48)).shape == (3,)


def test_another_precision_is_refused():
    with pytest.raises(UsageError, match="float16"):
        Engine(version(48), flat(), "float16")
