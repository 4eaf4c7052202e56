from __future__ import annotations

import pytest

from pawcast.errors import UsageError
from pawcast.store import open_store, shared_store


def test_a_path_and_a_file_uri_open_the_same_folder(tmp_path):
    assert open_store(str(tmp_path)).uri == open_store(f"file://{tmp_path}").uri == str(tmp_path)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UsageError, match="gs://"):
        open_store("gs://bucket/x")


def test_a_shared_store_is_opened_once(tmp_path):
    assert shared_store(str(tmp_path)) is shared_store(str(tmp_path))
