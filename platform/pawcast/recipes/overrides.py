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
    values = _load(name).model_dump()
    for override in overrides or []:
        _set(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _usage_error(error) from None


def _load(name: str) -> Recipe:
    """Return a built-in recipe, or call a user's function for one."""
    if not plugins.is_reference(name):
        if name not in RECIPES:
            raise UsageError(
                "Unknown recipe", received=repr(name), expected=suggest(name, RECIPES) + ", or package.module:function"
            )
        return RECIPES[name]()
    function = plugins.load(name)
    try:
        recipe = function()
    except ValidationError as error:
        raise _usage_error(error) from None
    except Exception as error:
        raise UsageError(f"The recipe {name} failed", received=f"{type(error).__name__}: {error}") from error
    if not isinstance(recipe, Recipe):
        raise UsageError(f"{name} made no recipe", received=type(recipe).__name__, expected="a pawcast.recipes.Recipe")
    return recipe


def _usage_error(error: ValidationError) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if not key:  # The message of a rule about several fields names them.
        return UsageError("Invalid recipe", received=first["msg"].removeprefix("Value error, "))
    return UsageError(f"Invalid value for `{key}`", received=repr(first["input"]), expected=first["msg"])


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError("Malformed --set", received=repr(override), expected="key=value")
    *parents, leaf = key.split(".")
    target = values
    for parent in parents:
        if not isinstance(target.get(parent), dict):
            raise UsageError("Unknown key in --set", received=repr(key), expected=suggest(parent, target))
        target = target[parent]
    if leaf not in target:
        raise UsageError("Unknown key in --set", received=repr(key), expected=suggest(leaf, target))
    # YAML 1.1 reads `1e-3` as text. Pydantic converts it to the field's type, or refuses it.
    try:
        target[leaf] = yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        raise UsageError(
            f"Unreadable value for `{key}`", received=repr(text), expected="a number, true or false"
        ) from None
