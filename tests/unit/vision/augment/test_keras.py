"""The warp against the code it claims to follow: Keras's own `apply_affine_transform`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.augment.sample import compose_affine

SIZE = 50


@pytest.fixture
def keras_map(monkeypatch):
    """Keras's output-to-input map, as a function of what `ImageDataGenerator` hands to `apply_affine_transform`.

    Keras's own code composes it. Only SciPy, which isn't installed, is stood in for, where it would resample.
    """
    configure_tensorflow(1)
    from keras.src.legacy.preprocessing import image

    def resample(channel, matrix, offset, **_):
        found.append((matrix.copy(), offset.copy()))
        return channel

    found: list[tuple[np.ndarray, np.ndarray]] = []
    interpolation = SimpleNamespace(affine_transform=resample)
    monkeypatch.setattr(image, "scipy", SimpleNamespace(ndimage=SimpleNamespace(interpolation=interpolation)))

    def as_row(**parameters: float) -> np.ndarray:
        found.clear()
        blank = np.zeros((SIZE, SIZE, 1))
        image.apply_affine_transform(blank, row_axis=0, col_axis=1, channel_axis=2, **parameters)
        ((m, o),) = found  # (row, column) to (row, column)
        return np.array([m[1, 1], m[1, 0], o[1], m[0, 1], m[0, 0], o[0]])

    return as_row


def ours(rotation=0.0, shift_x=0.0, shift_y=0.0, shear=0.0, zoom_x=1.0, zoom_y=1.0) -> np.ndarray:
    values = {
        "rotation": np.deg2rad(rotation), "shift_x": shift_x, "shift_y": shift_y, "shear": np.deg2rad(shear),
        "zoom_x": zoom_x, "zoom_y": zoom_y, "flip": False,
    }  # fmt: skip
    return compose_affine(SIZE, SIZE, **{key: np.array([value]) for key, value in values.items()})[0, :6]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"rotation": 17}, {"theta": 17}),
        ({"shift_x": 3, "shift_y": -5}, {"tx": 3, "ty": -5}),
        ({"zoom_x": 1.2, "zoom_y": 0.8}, {"zx": 1.2, "zy": 0.8}),
        ({"shear": 9}, {"shear": 9}),
        (
            {"rotation": 17, "shift_x": 3, "shift_y": -5, "shear": 9, "zoom_x": 1.2, "zoom_y": 0.8},
            {"theta": 17, "tx": 3, "ty": -5, "shear": 9, "zx": 1.2, "zy": 0.8},
        ),
    ],
)
def test_the_map_is_keras_own(keras_map, mine, theirs):
    np.testing.assert_allclose(ours(**mine), keras_map(**theirs), atol=1e-4)
