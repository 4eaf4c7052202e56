"""Shared by the tests of the service."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.store import Store, open_store
from tests.support.files import encode
from tests.support.served import publish


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with `pets@production`. Don't change it."""
    store = open_store(str(tmp_path_factory.mktemp("store")))
    publish(store)
    return store


@pytest.fixture
def photo(picture: np.ndarray) -> bytes:
    """A JPEG."""
    return encode(picture, "JPEG")
