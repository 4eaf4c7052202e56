"""What tests of sources share: scan, read, and the one line of a refusal."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pawcast.data import sources
from pawcast.errors import DataError, ImageError, PawcastError

CLASSES = ["cat", "dog"]
KAGGLE = {f"{name}.{i}.jpg": f"{name} {i}".encode() for i in range(12) for name in CLASSES}


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files in a folder."""
    return {f"{folder}/{name}": data for name, data in files.items()}


def read_all(path: str) -> list[bytes | ImageError]:
    """The bytes of every photo, without labels."""
    return list(sources.read(path, sources.scan(path).photos))


def labelled_contents(path: str) -> list[tuple[str, int, bytes | ImageError]]:
    """Id, label and bytes of every photo."""
    photos = sources.scan(path, CLASSES).photos
    return [(photo.id, photo.label, data) for photo, data in zip(photos, sources.read(path, photos), strict=True)]


def reason(item: bytes | ImageError) -> str:
    """Why a photo can't be read."""
    assert isinstance(item, ImageError)
    return item.what


def refusal(path: str, kind: type[PawcastError] = DataError) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(kind) as caught:
        sources.scan(path, CLASSES)
    line = str(caught.value)
    assert line.isprintable()
    return line
