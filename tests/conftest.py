"""Shared by all tiers: quiet, small pictures and sources, real parts to test against."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.services import ROOT, local_ray, photos, s3

__all__ = ["local_ray", "photos", "s3"]

# A busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def encode(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    """Encode uint8 [h, w, 3] as a file of some format."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def make_zip(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], **options: int) -> str:
    items = members.items() if isinstance(members, Mapping) else members
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in items:
            archive.writestr(zipfile.ZipInfo(name), data, options.get("compression"))
    return str(path)


def make_folder(path: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return str(path)


def import_job(name: str) -> ModuleType:
    """Import a file of `jobs/`, which is no package."""
    spec = importlib.util.spec_from_file_location(f"{name}_job", ROOT / "jobs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    return job


@pytest.fixture
def picture() -> np.ndarray:
    """A picture without symmetry: uint8 [60, 80, 3], smooth enough for JPEG."""
    y, x = np.mgrid[0:60, 0:80]
    planes = (x * 3, y * 4, 255 - x - 2 * y)
    return np.stack([np.clip(plane, 0, 255) for plane in planes], -1).astype(np.uint8)
