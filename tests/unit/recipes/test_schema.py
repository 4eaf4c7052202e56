"""What a recipe says about epochs, and that it never changes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pawcast.recipes import resolve


@pytest.mark.parametrize(("every", "validated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_validation_comes_every_so_many_epochs_and_after_the_last(every, validated):
    recipe = resolve("article", ["epochs=5", f"validate_every={every}"])
    assert [epoch + 1 for epoch in range(5) if recipe.validates_after(epoch)] == validated
    assert resolve("fast").validate_every == 1


def test_a_recipe_never_changes():
    with pytest.raises(ValidationError):
        resolve("smoke").epochs = 3  # type: ignore[misc]
