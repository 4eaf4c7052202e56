from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pawcast import registry
from pawcast.errors import IntegrityError, NotFoundError, UsageError
from pawcast.recipes import resolve
from pawcast.registry import ModelVersion
from pawcast.store import Store, open_store
from pawcast.vision import preprocess
from pawcast.vision.preprocess import Preprocessing
from tests.support.files import encode


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def register(store: Store, data: bytes = b"weights") -> ModelVersion:
    return registry.register(
        store, "catdog", {"w": data}, run="r", created="2026-01-01T00:00:00Z", code="0", recipe=resolve("smoke"),
        dataset="pets", dataset_sha256="0" * 64, classes=["cat", "dog"], preprocessing=Preprocessing(image_size=64),
        metrics={"val_acc": 0.5}, architecture="",
    )  # fmt: skip


def test_versions_count_up_and_latest_follows(store):
    first, second = register(store), register(store, b"better")
    assert (first.version, second.version) == (1, 2)
    assert registry.resolve(store, "catdog") == second
    assert registry.resolve(store, "catdog@1") == first
    assert registry.read_file(store, first, "w") == b"weights"


def test_promotion_moves_a_ref_and_says_where_it_was(store):
    register(store)
    register(store)
    assert registry.move_ref(store, "catdog", "production", 1) is None
    assert registry.move_ref(store, "catdog", "production", 2) == 1
    assert registry.resolve(store, "catdog@production").version == 2
    with pytest.raises(UsageError, match="can't be a number"):
        registry.move_ref(store, "catdog", "7", 1)


def test_registrations_at_once_get_numbers_of_their_own(store):
    with ThreadPoolExecutor(6) as pool:

        def one(i: int) -> int:
            try:
                return register(store, bytes([i])).version
            except registry.ConflictError:
                return 0  # lost the race for `latest`, after its version was published

        list(pool.map(one, range(6)))
    keys = list(store.list("models/catdog/versions/"))
    assert len(keys) == 6
    assert {registry.resolve(store, f"catdog@{n}").version for n in range(1, 7)} == set(range(1, 7))


def test_a_photo_is_no_sharper_than_its_detail_however_large_it_is(picture):
    large = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    small = preprocess.resize(large, 100)

    def apart(preprocessing: Preprocessing) -> float:
        assert preprocessing.apply(large).shape == (64, 64, 3)
        return float(np.abs(preprocessing.apply(large).astype(int) - preprocessing.apply(small)).mean())

    soft, sharp = Preprocessing(image_size=64, eval_downscale=25), Preprocessing(image_size=64)
    assert apart(soft) < 0.5 < apart(sharp)
    np.testing.assert_array_equal(soft.pixels(large), preprocess.resize(preprocess.resize(large, 25), 64))
    np.testing.assert_array_equal(sharp.pixels(large), preprocess.resize(large, 64))
    np.testing.assert_array_equal(soft.pixels(encode(picture)), soft.pixels(picture))


def test_changed_weights_are_refused(store, tmp_path):
    version = register(store)
    (tmp_path / "models" / "catdog" / "files" / version.files["w"].sha256).write_bytes(b"other")
    with pytest.raises(IntegrityError, match="was changed"):
        registry.read_file(store, version, "w")


def test_unknown_names_come_with_what_there_is(store):
    with pytest.raises(NotFoundError, match="none exist yet"):
        registry.resolve(store, "catdog")
    register(store)
    with pytest.raises(NotFoundError, match="did you mean 'catdog'"):
        registry.resolve(store, "catdogs")
    with pytest.raises(NotFoundError, match=r"jobs/promote\.py catdog latest production"):
        registry.resolve(store, "catdog@production")
    with pytest.raises(NotFoundError):
        registry.resolve(store, "catdog@9")
    with pytest.raises(UsageError, match="Not a name"):
        registry.resolve(store, "../x@latest")
