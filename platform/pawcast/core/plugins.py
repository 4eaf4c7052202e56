"""A user's own code, named as `package.module:function`, such as a network or a recipe of theirs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from pawcast.errors import NotFoundError, UsageError


def is_reference(name: str) -> bool:
    """Whether a name means a user's function rather than something of Pawcast's own."""
    return ":" in name


def load(reference: str) -> Callable[..., Any]:
    """Import `package.module:function`.

    Raises:
        UsageError: If it isn't of that form, or names no function.
        NotFoundError: If there is no such module, or its import fails.
    """
    module_name, _, function_name = reference.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise UsageError("Malformed reference", received=repr(reference), expected="package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise NotFoundError(
            f"No module {error.name!r}, which {reference!r} needs",
            fix="install it, or put its folder on PYTHONPATH, on every node",
        ) from None
    except Exception as error:
        raise UsageError(f"Importing {module_name!r} failed", received=f"{type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        have = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(
            f"{module_name!r} has no function {function_name!r}", expected=f"one of {', '.join(have) or 'none'}"
        )
    found: Callable[..., Any] = function
    return found
