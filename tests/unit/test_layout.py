"""The house rules that a reader can't see from one file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "platform" / "pawcast"
MODULES = [*PACKAGE.rglob("*.py"), *(ROOT / "serve").glob("*.py")]
# What each part may import, besides itself and what the parts that it imports may.
LAYERS = {
    "errors": set(),
    "settings": {"errors"},
    "names": {"errors"},
    "plugins": {"errors"},
    "recipe": set(),
    "recipes": {"errors", "plugins", "recipe"},
    "files": {"errors"},
    "devices": {"errors"},
    "images": {"errors"},
    "console": {"errors"},
    "cluster": {"errors"},
    "serving": {"cluster", "devices", "errors", "files"},
    "doctor": {"cluster", "devices", "errors", "store"},
    "evaluation": set(),
    "sources": {"errors", "images"},
    "store": {"errors"},
    "augment": {"recipe"},
    "models": {"errors", "plugins", "recipe"},
    "pretrained": {"errors", "models", "store"},
    "client": {"errors", "images", "sources"},
    "registry": {"devices", "errors", "images", "names", "recipe", "store"},
    "dataset": {"cluster", "errors", "files", "images", "names", "sources", "store"},
    "reports": {"augment", "devices", "recipe"},
    "training": {
        "augment", "cluster", "dataset", "devices", "errors", "images", "inference", "models", "names", "plugins",
        "pretrained", "recipe", "registry", "reports", "store",
    },
    "inference": {
        "augment", "dataset", "devices", "errors", "evaluation", "images", "models", "names", "recipe", "registry",
        "sources", "store",
    },
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
        assert not any(name.split(".")[0] in ("jobs", "serve", "pawcast_serve") for name in names)
    return parts


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part != "__init__":
        assert imported(path) - {part} <= LAYERS[part]


def test_platform_is_no_package():
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_keras_is_keras_3():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "serve").glob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) != "tf.keras", path
            if isinstance(node, ast.Import):
                assert all("tf_keras" not in alias.name for alias in node.names), path


def test_the_client_needs_neither_tensorflow_nor_ray():
    code = (
        "import sys, pawcast.client.bulk, pawcast.client.photos, pawcast.dataset.reader, pawcast.reports.gallery;"
        "sys.exit(any(m in sys.modules for m in ('ray', 'tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_modules_stay_small():
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 300}
    assert not long
