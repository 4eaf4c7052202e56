"""Recipes by name, with values replaced by `--set`."""

from __future__ import annotations

import pytest

from pawcast.errors import UsageError
from pawcast.recipes import resolve


def test_overrides_reach_nested_keys_and_read_numbers_as_people_write_them():
    recipe = resolve(
        "article", ["epochs=3", "augment.rotation=7.5", "learning_rate=1e-3", "augment.horizontal_flip=false"]
    )
    assert (recipe.epochs, recipe.augment.rotation, recipe.learning_rate) == (3, 7.5, 0.001)
    assert recipe.augment.horizontal_flip is False


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("augment.rotate=3", "did you mean 'rotation'"),
        ("augmentation.zoom=1", "did you mean 'augment'"),
        ("epochs", "key=value"),
        ("epochs=many", "Invalid value for `epochs`"),
        ("epochs=0", "greater than or equal to 1"),
        ("augment.zoom=1.5", "less than 1"),
        ("optimizer=adam", "rmsprop"),
        ("eval_downscale=151", "at most image_size"),
        ("validate_every=0", "Invalid value for `validate_every`.*greater than or equal to 1"),
        ("validate_every=1.5", "Invalid value for `validate_every`.*integer"),
    ],
)
def test_a_wrong_override_is_refused_with_a_hint(override, hint):
    with pytest.raises(UsageError, match=hint):
        resolve("article", [override])


def test_an_unknown_recipe_names_the_near_one():
    with pytest.raises(UsageError, match="did you mean 'article'"):
        resolve("artikel")
