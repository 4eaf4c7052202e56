"""What real jobs leave in a store: any damage is noticed, and the advice puts it right."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pawcast import recipes, registry
from pawcast.data import manifest as manifests
from pawcast.data.ingest import ingest
from pawcast.evaluation.versions import evaluate_version
from pawcast.store import Store, open_store
from pawcast.training.runs import Workers
from pawcast.training.trainer import train
from tests.support.damage import DAMAGES, try_damages, verify_everything
from tests.support.memory_store import MemoryStore
from tests.support.services import Photos, job, result_of

TRIALS = 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: Photos, local_ray: None) -> Path:
    """A store after ingest, training, promotion and evaluation."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    store = open_store(str(folder))
    ingest(store, "pets", str(photos.labelled), str(photos.unlabelled), test_size=60)
    recipe = recipes.resolve("smoke", ["image_size=48", "epochs=3"])
    train(store, "pets", recipe, Workers(cpus=1), run="first")
    registry.move_ref(store, "catdog", "production", 1)
    evaluate_version(store, "catdog@production", folder=folder.parent / "report")
    return folder


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Store:
    """A copy of that store, to be damaged."""
    store = open_store(str(tmp_path))
    for key, data in MemoryStore.copy_of(folder).values.items():
        store.put(key, data)
    return store


def test_no_damage_to_what_jobs_leave_goes_unnoticed(folder: Path) -> None:
    values = {key: data for key, data in MemoryStore.copy_of(folder).values.items() if "/ray/" not in key}
    assert {key.split("/")[0] for key in values} == {"datasets", "runs", "models"}
    assert any("/evaluations/" in key for key in values)
    assert try_damages(values, TRIALS, seed=0) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_ingest_puts_right_whatever_is_damaged_in_a_dataset(store: Store, photos: Photos, damage) -> None:
    picked = random.Random(0)
    before = manifests.load(store, "pets")
    keys = list(store.list("datasets/"))
    for key in keys:
        if damage.__name__ != "swap":
            damage(store, key, "", picked)
    if damage.__name__ == "swap":
        for key, other in zip(keys[::2], keys[1::2], strict=False):
            damage(store, key, other, picked)
    code, _, errors = job("verify.py", "--dataset", "pets", "--store", store.uri)
    assert code in (3, 5), errors
    assert ingest(store, "pets", str(photos.labelled), str(photos.unlabelled), test_size=60).manifest == before
    assert verify_everything(store) == set()


def test_whole_commands_name_what_is_damaged(store: Store) -> None:
    code, output, errors = job("verify.py", "--json", "--store", store.uri)
    assert code == 0, errors
    whole = result_of(output)
    assert whole["damaged"] == []
    assert whole["objects"] > 15
    version = "models/catdog/versions/1.json"
    data = store.get(version)
    store.put(version, data.replace(b'"scale": 0.0039', b'"scale": 1.0039'))
    assert store.get(version) != data
    for arguments in (("promote.py", "catdog", "1", "production"), ("evaluate.py", "--model", "catdog@production")):
        code, output, errors = job(*arguments, "--json", "--store", store.uri)
        assert (code, output) == (5, ""), errors
        (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
        assert version in line
    store.put("runs/first/run.json", b"")
    store.delete("runs/first/result.json")
    code, _, errors = job("train.py", "--resume", "first", "--store", store.uri)
    assert code == 5
    assert "runs/first/run.json" in errors
    code, output, errors = job("verify.py", "--json", "--store", store.uri)
    assert code == 5
    assert result_of(output)["damaged"] == [version, "runs/first/run.json"]
    assert "Traceback" not in errors
