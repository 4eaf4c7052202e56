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


def test_a_users_recipe_that_fails_is_named_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "failing_recipes.py").write_text(
        "from pawcast.recipes import Recipe\n"
        "def divides(): return 1 / 0\n"
        "def opens(): open('/no/such/file')\n"
        "def needs_an_argument(size): return size\n"
        "def invalid(): return Recipe(name='own', epochs=0)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, hint in (
        ("divides", "The recipe failing_recipes:divides failed. Received: ZeroDivisionError: division by zero"),
        ("opens", "FileNotFoundError.*no/such/file"),
        ("needs_an_argument", "TypeError.*size"),
        ("invalid", "Invalid value for `epochs`"),
    ):
        with pytest.raises(UsageError, match=hint):
            resolve(f"failing_recipes:{name}")
