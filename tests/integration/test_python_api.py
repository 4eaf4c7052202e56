"""The Python API as a notebook uses it, and the example in README.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pawcast
from pawcast import registry
from pawcast.errors import UsageError
from tests.support.services import ROOT, Photos, job, plain_environment, result_of

EXAMPLE = """
import pawcast

pawcast.ingest("pets", "train.zip", "test1.zip", test_size=60)
recipe = pawcast.get_recipe("smoke", epochs=2, image_size=48)
trained = pawcast.train("pets", recipe, workers=1)
print(trained.version.name, trained.history["val_acc"])
print(pawcast.evaluate("catdog@latest").metrics.accuracy)
model = pawcast.load_model("catdog@latest")
for prediction in model.predict(["cat.jpg", "dog.jpg"]):
    print(prediction.label, f"{prediction.probability:.1%}")
"""


def readme_example() -> str:
    """The first Python block below the heading `In Python` of README.md."""
    block = re.search(r"^#+ In Python\n.*?^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert block, "README.md has no example in Python"
    return block.group(1)


@pytest.fixture(scope="module")
def folder(photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with photos, in which the example has run."""
    path = tmp_path_factory.mktemp("notebook")
    shutil.copy(photos.labelled, path / "train.zip")
    shutil.copy(photos.unlabelled, path / "test1.zip")
    shutil.copy(photos.labelled_folder / "cat.0.jpg", path / "cat.jpg")
    shutil.copy(photos.labelled_folder / "dog.0.jpg", path / "dog.jpg")
    assert run(EXAMPLE, path).startswith("catdog@1 ")
    registry.move_ref(pawcast.open_store(str(path / "var" / "store")), "catdog", "production", 1)
    return path


def run(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=plain_environment(), capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def model(folder):
    return pawcast.load_model("catdog@1", store=str(folder / "var" / "store"))


def test_the_readme_example_runs(folder):
    run(readme_example(), folder)


def test_a_loaded_model_predicts_what_the_predict_command_predicts(model, folder):
    (prediction,) = model.predict(folder / "cat.jpg")
    store = ("--store", str(folder / "var" / "store"))
    code, output, errors = job("predict.py", str(folder / "cat.jpg"), "--model", "catdog@1", *store, "--json")
    assert code == 0, errors
    result = {"photo": str(folder / "cat.jpg"), "model": "catdog@1", **prediction._asdict()}
    assert result_of(output) == result


def test_a_loaded_model_can_be_evaluated_on_other_photos(model, folder, photos):
    store = str(folder / "var" / "store")
    reports = []
    on_test = pawcast.evaluate(model, store=store)
    other = pawcast.evaluate(
        model, labelled=str(photos.labelled_folder), store=store, progress=lambda *report: reports.append(report)
    )
    assert (on_test.metrics.photos, other.metrics.photos) == (60, 300)
    assert reports[-1] == ("evaluating", 300, 300)
    with pytest.raises(UsageError, match="did you mean 'test'"):
        pawcast.evaluate(model, split="tset", store=store)
