"""Small pictures and sources for tests."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from tests.support.services import ROOT


def encode(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    """Encode uint8 [h, w, 3] as a file of some format."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """Decode a picture whole."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def make_zip(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], **options: int) -> str:
    """Write a zip of these members; return its path."""
    items = members.items() if isinstance(members, Mapping) else members
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in items:
            archive.writestr(zipfile.ZipInfo(name), data, options.get("compression"))
    return str(path)


def make_folder(path: Path, files: Mapping[str, bytes]) -> str:
    """Write a folder of these files; return its path."""
    for name, data in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return str(path)


def import_job(name: str) -> ModuleType:
    """Import a file of `jobs/` by its path."""
    spec = importlib.util.spec_from_file_location(f"{name}_job", ROOT / "jobs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    return job
