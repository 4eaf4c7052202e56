"""A recipe by its name, with single values replaced: `--recipe article --set epochs=3`."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from pawcast.core import plugins
from pawcast.errors import UsageError, suggest
from pawcast.recipes.builtin import RECIPES
from pawcast.recipes.schema import Recipe


def resolve(name: str, overrides: list[str] | None = None) -> Recipe:
    """Return the named recipe with `key=value` overrides applied; nested keys have dots.

    Args:
        name: One of `RECIPES`, or `package.module:function` of a function without arguments that
            returns a `Recipe`.
        overrides: Values are YAML: `epochs=3`, `augment.rotation=10`, `train_sizes=[[1,64]]`.

    Example:
        >>> resolve("article", ["epochs=3", "augment.rotation=10"]).epochs
        3

    Raises:
        UsageError: For an unknown recipe or key (with near matches), or a value out of range.
        NotFoundError: If a user's module can't be found.
    """
    try:
        values = _load(name).model_dump()
        for override in overrides or []:
            _set(values, override)
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if not key:  # The message of a rule about several fields names them.
        raise UsageError("Invalid recipe", received=first["msg"].removeprefix("Value error, "))
    raise UsageError(f"Invalid value for `{key}`", received=repr(first["input"]), expected=first["msg"])


def _load(name: str) -> Recipe:
    """Return a built-in recipe, or call a user's function for one."""
    if not plugins.is_reference(name):
        if name not in RECIPES:
            expected = f"{suggest(name, RECIPES)}, or package.module:function"
            raise UsageError("Unknown recipe", received=repr(name), expected=expected)
        return RECIPES[name]()
    recipe = plugins.load(name)()
    if not isinstance(recipe, Recipe):
        raise UsageError(f"{name} made no recipe", received=type(recipe).__name__, expected="a pawcast.recipes.Recipe")
    return recipe


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError("Malformed --set", received=repr(override), expected="key=value")
    head, _, rest = key.partition(".")
    if head not in values or (rest and not isinstance(values[head], dict)):
        raise UsageError("Unknown key in --set", received=repr(key), expected=suggest(head, values))
    if rest:
        _set(values[head], f"{rest}={text}")
        return
    # YAML 1.1 reads `1e-3` as text. Pydantic converts it to the field's type, or refuses it.
    try:
        values[head] = yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        raise UsageError(f"Unreadable value for `{key}`", received=text, expected="a number, true or false") from None
