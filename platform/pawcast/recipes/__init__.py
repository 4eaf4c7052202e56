"""Recipes: everything that the result of a run depends on, as one validated object."""

from pawcast.recipes.builtin import RECIPES
from pawcast.recipes.overrides import resolve
from pawcast.recipes.schema import Augmentation, Recipe

__all__ = ["RECIPES", "Augmentation", "Recipe", "resolve"]
