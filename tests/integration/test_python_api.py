"""The Python API as a notebook uses it, and the example in README.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pawcast
from pawcast import registry
from pawcast.errors import ImageError, NotFoundError, UsageError
from tests.support.services import ROOT, Photos, plain_environment

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


def readme_example() -> str | None:
    """The first Python block below the heading `In Python` of README.md."""
    block = re.search(r"^#+ In Python\n.*?^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    return block.group(1) if block else None


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
    return pawcast.load_model("catdog@latest", store=str(folder / "var" / "store"))


def test_the_readme_example_runs(folder):
    example = readme_example()
    if example is None:
        pytest.skip("README.md has no example in Python")
    run(example, folder)


def test_photos_of_every_kind_have_the_same_prediction(model, folder):
    path = folder / "cat.jpg"
    with Image.open(path) as image:
        pixels = np.asarray(image)
        kinds = [path, str(path), path.read_bytes(), pixels, image]
        predictions = model.predict(kinds)
        assert model.predict(image) == model.predict(path) == predictions[:1]
    assert len(set(map(repr, predictions))) == 1
    assert model.predict(np.stack([pixels, pixels])) == predictions[:2]
    assert model.predict(kind for kind in kinds[:3]) == predictions[:3]
    assert model.predict([]) == []
    assert sum(predictions[0].scores.values()) == pytest.approx(1)
    assert predictions[0].scores[predictions[0].label] == predictions[0].probability >= 0.5
    assert (model.name, model.classes) == ("catdog@1", ["cat", "dog"])


def test_a_photo_that_cannot_be_decoded_is_raised_or_returned(model, folder):
    photos = [folder / "cat.jpg", b"no photo", folder / "dog.jpg"]
    with pytest.raises(ImageError, match="photo 1 can't be used"):
        model.predict(photos)
    good, bad, other = model.predict(photos, errors="return")
    assert isinstance(bad, ImageError)
    assert [good, other] == model.predict([photos[0], photos[2]])
    (folder / "broken.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"broken\.jpg can't be used. Received: empty file"):
        model.predict(folder / "broken.jpg")


def test_what_is_not_a_photo_is_refused(model, folder):
    with pytest.raises(NotFoundError, match=r"nowhere\.jpg can't be read"):
        model.predict([folder / "nowhere.jpg"], errors="return")
    for wrong in (np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), [None]):
        with pytest.raises(UsageError, match=r"uint8 array \[height, width, 3\]"):
            model.predict(wrong)


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
