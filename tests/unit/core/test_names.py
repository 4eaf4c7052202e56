"""Names that are safe in a store's keys."""

from __future__ import annotations

import pytest

from pawcast.core import names
from pawcast.errors import UsageError


@pytest.mark.parametrize("name", ["a", "7", "dogs-vs-cats", "article_2.1", "x" * 64])
def test_a_valid_name_is_returned(name):
    assert names.check("dataset", name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a@b", "ä", "a b", "a\n", "x" * 65])
def test_an_invalid_name_is_refused(name):
    with pytest.raises(UsageError, match="Invalid name for a model"):
        names.check("model", name)
