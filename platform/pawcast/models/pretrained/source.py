"""Find and read a file of pretrained weights.

Runs in the training driver, so it needs no TensorFlow.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pawcast.errors import NotFoundError, UsageError
from pawcast.store import open_store

_PACKAGE = "package:"
_SUFFIXES = (".h5", ".pth", ".pt")


def read_weights(source: str) -> bytes:
    """Read a weights file.

    Args:
        source: `package:NAME/path/in/it`, the URI of an object in a store
            (`s3://bucket/path/file.h5`), or a path.

    Raises:
        UsageError: If the file has another suffix than .h5, .pth or .pt.
        NotFoundError: If it isn't there.
    """
    if not source.endswith(_SUFFIXES):
        raise UsageError(
            "Unknown format of pretrained weights", received=repr(source), expected="a .h5, .pth or .pt file"
        )
    path = _path_in_package(source) if source.startswith(_PACKAGE) else source
    if "://" in path:
        folder, _, file = path.rpartition("/")
        return open_store(folder).get(file)
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise NotFoundError(f"The weights {path} can't be read", received=error.strerror) from None


def _path_in_package(source: str) -> str:
    name, _, path = source.removeprefix(_PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(name)
    except Exception:
        # The package above it is missing or fails, or the name is no package's.
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            f"No package {name!r}, which pretrained={source} needs",
            fix=f"pip install {name.split('.')[0].replace('_', '-')}",
        )
    return str(Path(spec.submodule_search_locations[0]) / path)
