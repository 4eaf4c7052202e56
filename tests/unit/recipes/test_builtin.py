"""The built-in recipes and their lab notes."""

from __future__ import annotations

import pytest

from pawcast.recipes import RECIPES, resolve


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_and_its_docstring_is_a_lab_note(name):
    assert resolve(name).name == name
    note = RECIPES[name].__doc__ or ""
    for entry in ("Command:", "Hardware:", "Minutes:", "Score:"):
        assert entry in note
