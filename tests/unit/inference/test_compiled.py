"""Compiled models: the same bits in every batch, mirror images, bfloat16, any photo size."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.inference import compiled
from pawcast.inference.batcher import MAX_BATCH
from pawcast.inference.compiled import CompiledModel
from pawcast.runtime.tensorflow import configure_tensorflow, keras, resolve_precision
from pawcast.vision.preprocess import Preprocessing
from tests.support.networks import flat, forked, noise, pooled, sequential

layers = keras.layers
NETWORKS = [(flat, 48), (pooled, 50), (forked, 50), (sequential, 48)]


def by_keras(network, pixels: np.ndarray) -> np.ndarray:
    return network(pixels.astype(np.float32) / 255, training=False).numpy()[:, 0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_a_photo_has_the_same_score_in_every_batch(network, size, precision):
    model = CompiledModel(network(), Preprocessing(image_size=size), precision)
    photos = noise(MAX_BATCH, size)
    alone = np.concatenate([model(photo[None]) for photo in photos])
    assert len(set(alone)) > MAX_BATCH // 4
    rng = np.random.default_rng(6)
    for count in range(1, MAX_BATCH + 1):
        sample = rng.permutation(MAX_BATCH)[:count]
        assert model(photos[sample]).tobytes() == alone[sample].tobytes(), count
    assert model(photos[:0]).shape == (0,)


@pytest.mark.parametrize("fastest", ["float32", "bfloat16"])
def test_bfloat16_is_emulated_where_the_machine_is_not_faster_in_it(monkeypatch, fastest):
    monkeypatch.setattr(compiled, "resolve_precision", lambda: fastest)
    network = flat()
    assert CompiledModel(network, Preprocessing(image_size=48), "bfloat16").emulated is (fastest == "float32")
    assert not CompiledModel(network, Preprocessing(image_size=48), "float32").emulated


@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_emulated_bfloat16_is_as_coarse_as_real_bfloat16(monkeypatch, network, size):
    if network in (flat, sequential) and resolve_precision() != "bfloat16":
        pytest.skip("TensorFlow's software bfloat16 truncates in matrix products, so it is coarser")
    original, photos = network(), noise(MAX_BATCH, size)
    scores = {}
    for fastest in ("float32", "bfloat16"):
        monkeypatch.setattr(compiled, "resolve_precision", lambda fastest=fastest: fastest)
        scores[fastest] = CompiledModel(original, Preprocessing(image_size=size), "bfloat16")(photos)
    exact = CompiledModel(original, Preprocessing(image_size=size))(photos)
    emulated, real = (np.abs(scores[fastest] - exact).mean() for fastest in ("float32", "bfloat16"))
    assert real / 2 < emulated < 2 * real


def test_emulated_bfloat16_rounds_the_input_of_each_layer(monkeypatch):
    monkeypatch.setattr(compiled, "resolve_precision", lambda: "float32")
    _start_tensorflow()
    pixels = keras.Input((4, 4, 3))
    x = layers.Dense(1)(layers.Dense(1, use_bias=False)(layers.Flatten()(layers.Conv2D(1, 4)(pixels))))
    network = keras.Model(pixels, layers.Activation("sigmoid")(x))
    third = np.float32(1 / 3)
    kernel = np.zeros((4, 4, 3, 1), np.float32)
    kernel[0, 0, 0] = 255
    ones = np.ones((1, 1), np.float32)
    network.set_weights([kernel, np.full(1, third), ones, ones, np.zeros(1, np.float32)])
    black = np.zeros((1, 4, 4, 3), np.uint8)
    # 1/3 is 0.333984375 in bfloat16: 171 / 512.
    score = CompiledModel(network, Preprocessing(image_size=4), "bfloat16")(black)
    np.testing.assert_allclose(score, 1 / (1 + np.exp(-171 / 512)), atol=1e-7, rtol=0)


def test_pixels_are_not_rounded_to_bfloat16():
    """The network adds up pixels times powers of two, so nothing but pixels could be rounded."""
    _start_tensorflow()
    pixels = keras.Input((4, 4, 3))
    x = layers.Conv2D(1, 4, use_bias=False)(pixels)
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)))
    kernel = np.zeros((4, 4, 3, 1), np.float32)
    kernel[0, 0, 0], kernel[3, 3, 2] = 255 / 16, -255 / 16
    network.set_weights([kernel, np.ones((1, 1), np.float32), np.zeros(1, np.float32)])
    photos = noise(50, 4)
    scores = CompiledModel(network, Preprocessing(image_size=4), "bfloat16")(photos)
    np.testing.assert_allclose(scores, by_keras(network, photos), atol=2e-6, rtol=0)


def test_quantized_kernels_keep_their_sums():
    """Kernels with a sum of 0 give 0 for a photo of one colour, in bfloat16 as well."""
    _start_tensorflow()
    pixels = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, use_bias=False)(pixels))
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(x))
    kernel = np.random.default_rng(6).normal(size=(3, 3, 3, 16)).astype(np.float32)
    network.set_weights([kernel - kernel.mean((0, 1)), np.full((16, 1), 5, np.float32), np.zeros(1, np.float32)])
    photos = np.broadcast_to(np.arange(5, 250, 5, np.uint8)[:, None, None, None], (49, 8, 8, 3))
    scores = CompiledModel(network, Preprocessing(image_size=8), "bfloat16")(photos)
    np.testing.assert_allclose(scores, by_keras(network, photos), atol=3e-3, rtol=0)


def test_the_article_has_the_same_scores_in_every_batch():
    """At full size, where sums are longest."""
    model = CompiledModel(flat(150), Preprocessing(image_size=150))
    photos = noise(20, 150)
    whole = model(photos)
    for count in (1, 3, 8, 13):
        assert model(photos[-count:]).tobytes() == whole[-count:].tobytes(), count


@pytest.mark.parametrize(("network", "size"), [(flat, 48), (pooled, 50), (pooled, 64), (sequential, 48)])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.01)])
def test_scores_are_close_to_those_of_keras(network, size, precision, tolerance):
    original, photos = network(), noise(20, size)
    scores = CompiledModel(original, Preprocessing(image_size=size), precision)(photos)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_keras(original, photos), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("network", "size"), [(flat, 48), (pooled, 50), (forked, 50)])
def test_with_mirror_images_the_probability_is_the_mean_of_both(network, size):
    original, photos = network(), noise(20, size)
    model = CompiledModel(original, Preprocessing(image_size=size, mirror=True))
    both = by_keras(original, photos), by_keras(original, photos[:, :, ::-1])
    assert np.abs(both[0] - both[1]).max() > 1e-3
    scores = model(photos)
    np.testing.assert_allclose(scores, np.mean(both, axis=0), atol=1e-6, rtol=0)
    assert model(photos[7:9]).tobytes() == scores[7:9].tobytes()
    np.testing.assert_allclose(model(photos[:, :, ::-1]), scores, atol=1e-6, rtol=0)


def _start_tensorflow() -> None:
    configure_tensorflow(2)
