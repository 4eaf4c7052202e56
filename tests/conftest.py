"""Shared by all tiers: quiet, small pictures and sources, real parts to test against."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

from tests.support.services import local_ray, photos, s3

__all__ = ["local_ray", "photos", "s3"]

# A busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def picture() -> np.ndarray:
    """A picture without symmetry: uint8 [60, 80, 3], smooth enough for JPEG."""
    y, x = np.mgrid[0:60, 0:80]
    planes = (x * 3, y * 4, 255 - x - 2 * y)
    return np.stack([np.clip(plane, 0, 255) for plane in planes], -1).astype(np.uint8)
