"""`Model.predict` takes photos of many kinds, and names the one that it can't use."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pawcast.errors import ImageError, NotFoundError, UsageError
from pawcast.inference.model import Model
from pawcast.vision.preprocess import Preprocessing
from tests.support.files import encode


@pytest.fixture
def model() -> Model:
    """A model whose probability of a dog is the mean brightness of the photo."""
    version = SimpleNamespace(name="catdog@1", classes=["cat", "dog"], preprocessing=Preprocessing(image_size=32))
    engine = SimpleNamespace(version=version, precision="float32", predict=lambda pixels: pixels.mean((1, 2, 3)) / 255)
    return Model(engine)


def test_photos_of_every_kind_have_the_same_prediction(model, picture, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(picture))
    image = Image.fromarray(picture)
    kinds = [path, str(path), path.read_bytes(), picture, image, Image.open(path)]
    predictions = model.predict(kinds)
    assert len(predictions) == len(kinds)
    assert len(set(map(repr, predictions))) == 1
    for one in kinds:
        assert model.predict(one) == predictions[:1]
    assert model.predict(np.stack([picture, picture])) == predictions[:2]
    assert model.predict(kind for kind in kinds[:3]) == predictions[:3]
    assert model.predict([]) == []


def test_predictions_are_in_the_order_of_the_photos(model):
    shades = [np.full((8, 8, 3), shade, np.uint8) for shade in range(0, 256, 2)]
    predictions = model.predict(shades)
    assert [prediction.scores["dog"] for prediction in predictions] == pytest.approx(
        [i / 255 for i in range(0, 256, 2)]
    )
    assert [prediction.label for prediction in predictions] == ["cat"] * 64 + ["dog"] * 64
    assert repr(model) == "Model('catdog@1', classes=['cat', 'dog'], precision='float32')"


def test_a_pillow_image_has_the_pixels_of_its_file(model):
    transparent = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    file = io.BytesIO()
    transparent.save(file, "PNG")
    turned = Image.fromarray(np.repeat(np.arange(48, dtype=np.uint8)[:, None, None] * 5, 3, 2).repeat(20, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = io.BytesIO()
    turned.save(rotated, "PNG", exif=exif)
    for image in (file, rotated):
        assert model.predict(Image.open(image)) == model.predict(image.getvalue())


@pytest.mark.parametrize("bad", [b"no photo", b"", Image.new("F", (8, 8))])
def test_a_photo_that_cannot_be_decoded_is_raised_or_returned(model, picture, bad):
    with pytest.raises(ImageError, match="photo 1 can't be used"):
        model.predict([picture, bad, picture])
    first, error, last = model.predict([picture, bad, picture], errors="return")
    assert isinstance(error, ImageError)
    assert [first, last] == model.predict([picture, picture])


def test_an_undecodable_file_is_named(model, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"broken\.jpg can't be used. Received: empty file"):
        model.predict(tmp_path / "broken.jpg")


def test_a_missing_file_is_not_found(model, tmp_path):
    with pytest.raises(NotFoundError, match=r"nowhere\.jpg can't be read"):
        model.predict([tmp_path / "nowhere.jpg"], errors="return")


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), [None]]
)
def test_what_is_not_a_photo_is_refused(model, wrong):
    with pytest.raises(UsageError, match=r"uint8 array \[height, width, 3\]"):
        model.predict(wrong)
