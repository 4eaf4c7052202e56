"""Small pictures and sources that tests make."""

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
