"""The house rules that a reader can't see from one file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "platform" / "pawcast"
CODE = [path for root in ("platform/pawcast", "serve", "jobs", "infra") for path in (ROOT / root).rglob("*.py")]
# What each room may import, besides itself.
LAYERS = {
    "errors": set(),
    "core": {"errors"},
    "recipes": {"core", "errors"},
    "runtime": {"core", "errors"},
    "store": {"core", "errors"},
    "vision": {"core", "errors", "recipes", "runtime"},
    "data": {"core", "errors", "runtime", "store", "vision"},
    "models": {"core", "errors", "recipes", "runtime", "store", "vision"},
    "registry": {"core", "errors", "recipes", "runtime", "store", "vision"},
    "inference": {"core", "data", "errors", "models", "recipes", "registry", "runtime", "store", "vision"},
    "evaluation": {"core", "data", "errors", "inference", "recipes", "registry", "runtime", "store", "vision"},
    "training": {
        "core", "data", "errors", "evaluation", "inference", "models", "recipes", "registry", "runtime",
        "store", "vision",
    },
    "client": {"core", "data", "errors", "inference", "vision"},
    "doctor": {"core", "errors", "runtime", "store"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """The parts of the package that a module imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "pawcast":
            names = [f"pawcast.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        parts |= {name.split(".")[1] for name in names if name.startswith("pawcast.")}
        assert not any(name.split(".")[0] in ("pawcast_jobs", "pawcast_serve", "pawcast_infra") for name in names)
    return parts


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part != "__init__":
        assert imported(path) - {part} <= LAYERS[part]


def test_platform_is_no_package():
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_keras_is_keras_3():
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) != "tf.keras", path
            if isinstance(node, ast.Import):
                assert all("tf_keras" not in alias.name for alias in node.names), path


def test_the_client_needs_neither_tensorflow_nor_ray():
    modules = "pawcast.client.bulk, pawcast.client.photos, pawcast.data.reader, pawcast.evaluation.reports.gallery"
    code = f"import sys, {modules}; sys.exit(any(m in sys.modules for m in ('ray', 'tensorflow', 'keras')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_has_no_loose_modules():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "errors.py"}
