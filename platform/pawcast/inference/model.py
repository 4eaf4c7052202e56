"""A model version for Python code: photos of any kind in, predictions out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, overload

import numpy as np
from PIL import Image

from pawcast.errors import ImageError, NotFoundError, UsageError
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import Prediction, predict_scores, to_prediction
from pawcast.store import Store
from pawcast.vision.decode import decode_image

Photo = str | os.PathLike[str] | bytes | np.ndarray | Image.Image


class Model:
    """A version of a model in memory. It predicts exactly what the service would.

    Example:
        >>> model = pawcast.load_model("catdog@production")
        >>> [prediction.label for prediction in model.predict(["1.jpg", "2.jpg"])]
        ['cat', 'dog']

    Args:
        engine: The engine that computes the predictions.

    Attributes:
        engine: The same engine.
        version: The record of the version: recipe, dataset, metrics, preprocessing.
        name: The name of the version: `MODEL@NUMBER`.
        classes: The names of class 0 and class 1.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.version = engine, engine.version
        self.name, self.classes = self.version.name, self.version.classes

    @classmethod
    def load(cls, store: Store, name: str, precision: str = "auto") -> Model:
        """Load `MODEL@REF` or `MODEL@NUMBER` from a store. Raises what `Engine.load` raises."""
        return cls(Engine.load(store, name, precision))

    def __repr__(self) -> str:
        return f"Model({self.name!r}, classes={self.classes}, precision={self.engine.precision!r})"

    @overload
    def predict(self, photos: Photo | Iterable[Photo], errors: Literal["raise"] = "raise") -> list[Prediction]: ...

    @overload
    def predict(self, photos: Photo | Iterable[Photo], errors: Literal["return"]) -> list[Prediction | ImageError]: ...

    def predict(
        self, photos: Photo | Iterable[Photo], errors: Literal["raise", "return"] = "raise"
    ) -> list[Prediction] | list[Prediction | ImageError]:
        """Predict one or many photos, in batches. Only a few batches are in memory at once.

        Args:
            photos: One photo or an iterable of photos. A photo is a path, the bytes of a file,
                an RGB array, uint8 [height, width, 3], or a Pillow image. An array of
                uint8 [n, height, width, 3] is n photos.
            errors: What to do about a photo that can't be decoded: `raise` an `ImageError` that
                names it, or `return` the `ImageError` in its place.

        Returns:
            One prediction for each photo, in order. One photo gives a list of one.

        Raises:
            ImageError: If a photo can't be decoded, with `errors="raise"`.
            NotFoundError: If a path can't be read.
            UsageError: If an array is not of the dtype and shape above, or a photo of another type.
        """
        predictions: list[Prediction | ImageError] = []
        names: list[str] = []
        for score in predict_scores(self.engine, _contents(photos, names)):
            if not isinstance(score, ImageError):
                predictions.append(to_prediction(score, self.classes))
            elif errors == "return":
                predictions.append(score)
            else:
                raise ImageError(f"{names[len(predictions)]} can't be used", received=score.what)
        return predictions


def _contents(photos: Photo | Iterable[Photo], names: list[str]) -> Iterator[bytes | np.ndarray | ImageError]:
    """Yield the bytes or pixels of each photo; append its name for error messages to `names`."""
    if isinstance(photos, np.ndarray) and photos.ndim != 4:
        photos = photos[None]
    each = [photos] if isinstance(photos, (str, os.PathLike, bytes, Image.Image)) else photos
    for index, photo in enumerate(each):
        names.append(str(photo) if isinstance(photo, (str, os.PathLike)) else f"photo {index}")
        try:
            yield _content(photo)
        except ImageError as error:
            yield error


def _content(photo: Photo) -> bytes | np.ndarray:
    if isinstance(photo, Image.Image):
        return decode_image(photo)
    if isinstance(photo, (str, os.PathLike)):
        try:
            return Path(photo).read_bytes()
        except OSError as error:
            raise NotFoundError(f"{photo} can't be read", received=error.strerror) from None
    received = type(photo).__name__
    if isinstance(photo, np.ndarray):
        if photo.dtype == np.uint8 and photo.shape[2:] == (3,) and photo.size:
            return photo
        received = f"{photo.dtype} {list(photo.shape)}"
    elif isinstance(photo, bytes):
        return photo
    expected = "a path, bytes, a Pillow image, or a uint8 array [height, width, 3]"
    raise UsageError("Not a photo", received=received, expected=expected)
