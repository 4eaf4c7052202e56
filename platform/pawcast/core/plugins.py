"""A user's own code, such as a model or a recipe, named as `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from pawcast.errors import NotFoundError, UsageError


def is_reference(name: str) -> bool:
    """Return whether a name refers to a user's function, and not to a part of Pawcast."""
    return ":" in name


def load(reference: str) -> Callable[..., Any]:
    """Import a user's function, named as `package.module:function`.

    Raises:
        UsageError: If the reference is malformed, the module's import fails, or it has no such
            function.
        NotFoundError: If a module is missing.
    """
    module_name, _, function_name = reference.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise UsageError("Malformed reference", received=repr(reference), expected="package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        fix = "install it, or put its folder on PYTHONPATH, on every node"
        raise NotFoundError(f"No module {error.name!r}, which {reference!r} needs", fix=fix) from None
    except Exception as error:
        raise UsageError(f"Importing {module_name!r} failed", received=f"{type(error).__name__}: {error}") from error
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        expected = f"one of {', '.join(functions) or 'none'}"
        raise UsageError(f"{module_name!r} has no function {function_name!r}", expected=expected)
    return function
