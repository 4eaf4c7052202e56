"""Normalization folded into convolutions: where it may be, and with the unfolded network's outputs and gradients."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import configure_tensorflow


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure_tensorflow(2)


def pretrained_like():
    """EfficientNet-Lite2, its statistics as far from fresh ones as trained ones are."""
    import keras
    from keras import layers

    from pawcast.models import build

    keras.utils.set_random_seed(0)
    network = build.build_model(resolve("transfer", ["dropout=0"]))
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            layer.gamma.assign(rng.uniform(0.5, 1.5, channels))
            layer.beta.assign(rng.normal(0, 0.1, channels))
            layer.moving_mean.assign(rng.normal(0, 0.1, channels))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, channels))
    return network


def test_a_frozen_network_keeps_its_outputs_and_gradients():
    import tensorflow as tf

    from pawcast.models import folding

    network = pretrained_like()
    other = folding.folded(network)
    assert other is not network
    assert {id(v) for v in other.variables} == {id(v) for v in network.variables}
    pixels = tf.constant(np.random.default_rng(1).uniform(0, 1, (4, 64, 64, 3)).astype(np.float32))
    found = []
    for model in (network, other):
        with tf.GradientTape() as tape:
            y = model(pixels, training=True)
            loss = tf.reduce_sum(tf.math.log(y))
        found.append([y, *tape.gradient(loss, network.trainable_variables)])
    for own, theirs in zip(*found, strict=True):
        size = np.abs(theirs).max()
        np.testing.assert_allclose(np.asarray(own), np.asarray(theirs), atol=1e-3 * size, rtol=1e-3)


def test_each_convolution_takes_the_normalization_behind_it():
    from keras import layers

    from pawcast.models import build, folding

    for name in ("transfer", "fast"):
        network = build.build_model(resolve(name))
        norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
        assert [*folding.pairs(network).values()] == norms
        assert all(network.get_layer(before).use_bias is False for before in folding.pairs(network))
        assert bool(folding.pairs(network, frozen_only=True)) == (name == "transfer")
    # What still learns its statistics can't be folded.
    assert folding.folded(network) is network


@pytest.mark.parametrize(
    "case",
    ["activated", "used twice", "an output", "no convolution", "shared", "another axis", "a user's own", "sequential"],
)
def test_what_is_no_convolution_of_its_own_stays_apart(case):
    import keras
    from keras import layers

    from pawcast.models import folding

    pixels = keras.Input((8, 8, 3))
    convolved = layers.Conv2D(4, 3, activation="relu" if case == "activated" else None)(pixels)
    if case == "no convolution":
        convolved = layers.MaxPooling2D()(convolved)
    kind = type("Own", (layers.BatchNormalization,), {}) if case == "a user's own" else layers.BatchNormalization
    norm = kind(axis=1 if case == "another axis" else -1, trainable=False)
    y = norm(convolved)
    if case == "used twice":
        y = layers.Add()([y, convolved])
    if case == "shared":
        y = layers.Add()([y, norm(layers.Conv2D(4, 3)(pixels))])
    network = keras.Model(pixels, [y, convolved] if case == "an output" else y)
    if case == "sequential":
        network = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    assert folding.pairs(network) == {}
    assert folding.folded(network) is network


@pytest.mark.parametrize("kind", ["convolution", "depthwise"])
def test_a_convolutions_own_bias_is_kept(kind):
    import keras
    from keras import layers

    from pawcast.models import folding

    pixels = keras.Input((8, 8, 3))
    if kind == "convolution":
        convolution = layers.Conv2D(6, 3, strides=2, padding="same", bias_initializer="random_normal")
    else:
        # Two channels of each: the order in which they are scaled matters.
        convolution = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, bias_initializer="random_normal")
    norm = layers.BatchNormalization(trainable=False)
    network = keras.Model(pixels, norm(convolution(pixels)))
    rng = np.random.default_rng(0)
    norm.set_weights([rng.uniform(0.5, 2, 6) for _ in norm.weights])
    x = rng.normal(0, 1, (2, 8, 8, 3)).astype(np.float32)
    expected = np.asarray(network(x))
    np.testing.assert_allclose(np.asarray(folding.folded(network)(x)), expected, atol=1e-5)
    convolution.set_weights(folding.merged(convolution, norm))
    np.testing.assert_allclose(np.asarray(convolution(x)), expected, atol=1e-5)


def test_in_bfloat16_it_stays_as_close_as_the_unfolded_network():
    from pawcast.models import build, folding

    exact = pretrained_like()
    network = build.build_model(resolve("transfer", ["dropout=0"]), "bfloat16")
    network.set_weights(exact.get_weights())
    pixels = np.random.default_rng(1).uniform(0, 1, (4, 64, 64, 3)).astype(np.float32)
    other = folding.folded(network)
    assert {layer.output.dtype for layer in other.layers if layer.name.endswith("_folded")} == {"bfloat16"}
    expected, unfolded, found = (np.asarray(model(pixels)) for model in (exact, network, other))
    # By chance the unfolded one may be off by nothing.
    assert np.abs(found - expected).max() <= max(2 * np.abs(unfolded - expected).max(), 0.01)


def test_a_scale_of_pixels_can_be_a_convolutions_own_only_if_that_alone_takes_them_and_nothing_else():
    import keras
    from keras import layers

    from pawcast.models import build, folding

    network = build.build_model(resolve("smoke"))
    assert folding.first_convolution(network) is network.layers[1]
    pixels, convolution = keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same")
    for cells in (
        convolution(convolution(pixels)),
        layers.Add()([pixels, layers.Conv2D(3, 3, padding="same")(pixels)]),
        layers.Conv2D(3, 3)(layers.Rescaling(2.0)(pixels)),
    ):
        assert folding.first_convolution(keras.Model(pixels, cells)) is None


def test_rectifiers_behind_pooling_may_lie_before_it():
    from keras import layers

    from pawcast.models import build, folding

    for name, count in (("article", 4), ("fast", 4), ("transfer", 0)):
        network = build.build_model(resolve(name))
        found = folding.rectifiers(network)
        assert len(found) == count
        for convolution, relu in found.items():
            pooling = relu.input._keras_history.operation
            assert type(pooling) is layers.MaxPooling2D
            before = pooling.input._keras_history.operation
            assert before in (network.get_layer(convolution), folding.pairs(network).get(convolution))


@pytest.mark.parametrize(
    "case", ["ReLU6", "leaky", "averages", "activated", "convolved twice", "pooled twice", "an output"]
)
def test_a_rectifier_stays_where_another_place_would_change_values(case):
    import keras
    from keras import layers

    from pawcast.models import folding

    pixels = keras.Input((16, 16, 3))
    convolved = layers.Conv2D(4, 3, activation="sigmoid" if case == "activated" else None)(pixels)
    pooled = (layers.AveragePooling2D(2) if case == "averages" else layers.MaxPooling2D(2))(convolved)
    relu = layers.ReLU(6 if case == "ReLU6" else None, 0.1 if case == "leaky" else 0)
    y = relu(pooled)
    if case == "convolved twice":
        y = layers.Add()([y, layers.MaxPooling2D(2)(convolved)])
    if case == "pooled twice":
        y = layers.Add()([y, pooled])
    network = keras.Model(pixels, [y, convolved] if case == "an output" else y)
    assert folding.rectifiers(network) == {}
