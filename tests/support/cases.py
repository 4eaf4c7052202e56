"""Small inputs that went wrong once, and real photos: folders beside the repository, not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.services import ROOT

SHARED = ROOT.parent / "shared"


def case(name: str) -> Path:
    """Return a small input. Skip the test if this machine doesn't have it."""
    return _beside(SHARED / "cases" / name)


def photos(name: str) -> Path:
    """Return an archive of real photos. Skip the test if this machine doesn't have it."""
    return _beside(SHARED / "data" / name)


def _beside(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs {path.parent.name}/{path.name} in the folder `shared` beside the repository")
    return path
