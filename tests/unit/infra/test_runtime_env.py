"""What `ray job submit` packs with infra/runtime-env.yaml, by Ray's own packaging."""

from __future__ import annotations

import zipfile

import yaml
from ray._private.runtime_env.packaging import create_package

from tests.support.services import ROOT

EXCLUDES = yaml.safe_load((ROOT / "infra" / "runtime-env.yaml").read_text())["excludes"]


def test_only_code_is_packed(tmp_path):
    project, package = tmp_path / "project", tmp_path / "package.zip"
    code = [
        "platform/pawcast/__init__.py",
        "jobs/train.py",
        "serve/web/index.html",
        "infra/local/a.py",
        "own_network.py",
    ]
    other = [
        ".git/objects/pack/a.pack",
        ".venv/lib/a.py",
        "photos/cat.1.jpg",
        "train.zip",
        "cat.1.jpg",
        "var/store/datasets/a/latest",
        "tests/unit/test_a.py",
        "jobs/__pycache__/train.pyc",
    ]
    for name in code + other:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    create_package(str(project), package, include_gitignore=True, excludes=EXCLUDES)
    with zipfile.ZipFile(package) as archive:
        assert sorted(name for name in archive.namelist() if not name.endswith("/")) == sorted(code)


def test_the_package_of_this_project_is_small(tmp_path):
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=EXCLUDES)
    with zipfile.ZipFile(package) as archive:
        assert {"jobs/train.py", "platform/pawcast/__init__.py"} <= set(archive.namelist())
    assert package.stat().st_size < 2 * 2**20
