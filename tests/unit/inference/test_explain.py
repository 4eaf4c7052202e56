"""Heat maps show the region that decides, for networks of which the region is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pawcast import recipes
from pawcast.errors import ImageError
from pawcast.inference import explain
from pawcast.inference.engine import Engine
from pawcast.inference.explain import Explainer, heatmap_png, upsample_heatmap
from pawcast.models import build
from pawcast.runtime.tensorflow import configure_tensorflow, keras
from tests.support.files import encode
from tests.support.served import version

layers = keras.layers
SIZE = 32


def corner_engine(top: int, left: int, weight: float = 1.0) -> Engine:
    return engine(corner_network(top, left, weight), SIZE)


def corner_network(top: int, left: int, weight: float, height: int = 8):
    """A network that sees brightness, of which only one corner, 8 cells wide, counts."""
    configure_tensorflow(1)
    pixels = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(1, 3, padding="same", activation="relu", kernel_initializer="ones", name="conv")(pixels)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(1, 1, activation="relu", kernel_initializer="ones")(x)
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(layers.Flatten()(x)))
    kernel = np.zeros((SIZE // 2, SIZE // 2), np.float32)
    kernel[top : top + height, left : left + 8] = weight
    network.layers[-1].set_weights([kernel.reshape(-1, 1), np.zeros(1, np.float32)])
    return network


def engine(network, size: int, mirror: bool = False) -> Engine:
    return Engine(version(size, mirror).model_copy(update={"classes": ["left", "right"]}), network)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 8), (8, 0), (8, 8)])
@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_only_the_corner_that_decides_is_hot(top, left, weight):
    # In a plain photo all cells are equally active, so only the gradient tells them apart.
    photo = encode(np.full((120, 200, 3), 200, np.uint8))
    prediction, heat = Explainer(corner_engine(top, left, weight)).explain(photo)
    assert prediction.label == ("right" if weight > 0 else "left")
    assert prediction.probability > 0.99
    assert heat.shape == (120, 200)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1)
    rows, columns = slice(top * 15 // 2, top * 15 // 2 + 60), slice(left * 25 // 2, left * 25 // 2 + 100)
    inside = heat[rows, columns].sum()
    assert inside > 0.85 * heat.sum()


def test_a_sure_network_is_explained_too():
    # The gradient of the sigmoid is 0 here in float32.
    _, heat = Explainer(corner_engine(0, 0, 50.0)).explain(encode(np.full((40, 40, 3), 255, np.uint8)))
    assert heat.max() == pytest.approx(1)


def test_a_prediction_of_nan_is_an_error():
    with pytest.raises(ImageError, match="NaN"):
        Explainer(corner_engine(0, 0, float("nan"))).explain(encode(np.full((40, 40, 3), 9, np.uint8)))


def test_nothing_is_hot_where_no_cell_speaks_for_the_label():
    prediction, heat = Explainer(corner_engine(0, 0)).explain(encode(np.zeros((40, 60, 3), np.uint8)))
    assert prediction.probability == 0.5
    assert not heat.any()


def test_large_photos_get_a_map_of_their_aspect_ratio_and_broken_ones_an_error():
    explainer = Explainer(corner_engine(0, 0))
    assert explainer.explain(encode(np.full((900, 1800, 3), 9, np.uint8))).heat.shape == (320, 640)
    with pytest.raises(ImageError, match="not an image"):
        explainer.explain(b"junk")


@pytest.mark.parametrize("builder", ["article", "small"])
def test_networks_of_recipes_are_explained(builder):
    configure_tensorflow(1)
    config = recipes.resolve("smoke").model_copy(update={"model": builder, "image_size": 96})
    network = build.build_model(config)
    assert explain._stride(explain._explained_cells(network)) == {"article": 8, "small": 4}[builder]
    served = engine(network, 96)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    prediction, heat = Explainer(served).explain(encode(noise))
    assert prediction.scores["right"] == served.predict(noise[None])[0]
    assert heat.shape == (96, 96)


def pooling_network(kernel: tuple[float, float, float] = (1, -1, 0)):
    """For photos of any size: averages over all cells how much redder than green they are."""
    configure_tensorflow(1)
    pixels = keras.Input((None, None, 3))
    x = layers.Conv2D(3, 2, strides=2, padding="same", use_bias=False)(pixels)
    y = layers.Conv2D(3, 1, use_bias=False)(x)
    x = layers.MaxPooling2D(2)(layers.Add()([x, y]))
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x)))
    each = np.eye(3, dtype=np.float32)
    network.set_weights([np.tile(each / 8, (2, 2, 1, 1)), each[None, None], np.array([kernel]).T * 50, np.zeros(1)])
    return network


def test_a_network_with_global_pooling_is_explained_by_the_pooled_cells():
    """The map is then the class activation map: the contribution of each cell to the sum."""
    network = pooling_network()
    assert explain._stride(explain._explained_cells(network)) == 4
    for size in (64, 96):
        photo = np.full((96, 192, 3), 60, np.uint8)
        photo[24:48, 96:120] = (250, 0, 0)
        photo[60:72, 24:60] = (0, 90, 0)
        for colors, label in ((photo, "right"), (photo[..., [1, 0, 2]], "left")):
            prediction, heat = Explainer(engine(network, size)).explain(encode(np.ascontiguousarray(colors)))
            assert prediction.label == label
            # At 64 px cells are 6 by 12 pixels of this photo; the map is smoothed over one or two.
            assert heat[24:48, 96:120].min() > 0.3
            assert heat[12:60, 72:144].sum() > 0.95 * heat.sum()


@pytest.mark.parametrize("mirror", [False, True])
def test_with_mirror_images_the_map_shows_the_regions_of_both(mirror):
    """The network sees the left half only; the mirror image shows it the right half."""
    network = corner_network(0, 0, 1.0, height=SIZE // 2)
    photo = encode(np.full((120, 120, 3), 200, np.uint8))
    prediction, heat = Explainer(engine(network, SIZE, mirror)).explain(photo)
    assert prediction.label == "right"
    left, right = heat[:, :60].sum(), heat[:, 60:].sum()
    assert left == pytest.approx(right, rel=0.05) if mirror else left > 5 * right


def test_cells_are_placed_where_they_look():
    # Twelve cells, 4 pixels apart, in the middle of 64 pixels: the first begins at pixel 8.
    cells = np.zeros((12, 12), np.float32)
    cells[2, 9] = 1
    heat = upsample_heatmap(cells, 64, 4, (64, 128))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert row == pytest.approx(8 + 2.5 * 4, abs=1.5)
    assert column == pytest.approx(2 * (8 + 9.5 * 4), abs=2.5)


def test_the_overlay_is_transparent_where_the_map_is_cold():
    heat = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    picture = cv2.imdecode(np.frombuffer(heatmap_png(heat), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (6, 10, 4)
    assert picture.dtype == np.uint8
    assert picture[0, 0, 3] == 0
    assert (np.diff(picture[..., 3].reshape(-1).astype(int)) >= 0).all()
    assert picture[-1, -1, 3] > 200
