from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pawcast import registry
from pawcast.errors import ConflictError, IntegrityError, NotFoundError, UsageError
from pawcast.recipes import resolve
from pawcast.registry import ModelVersion
from pawcast.store import Store, open_store, records
from pawcast.store.folder import FolderStore
from pawcast.store.refs import Ref
from pawcast.vision.preprocess import Preprocessing

# As Pawcast wrote it when `parity` was called `agreement` and `resize` was a sentence.
RECORD_OF_SCHEMA_1 = """{
 "schema_version": 1, "model": "catdog", "version": 1, "run": "smoke-1", "created": "2026-01-01T00:00:00Z",
 "code": "0.1.0",
 "recipe": {
  "name": "smoke", "model": "small", "image_size": 64, "detail": null, "train_sizes": [], "mirror": false,
  "dropout": 0.2, "width": 1.0, "depth": 1, "pretrained": null, "frozen_epochs": 0, "fine_tune_from": null,
  "frozen_learning_rate": 0.001,
  "augment": {
   "rotation": 15.0, "width_shift": 0.1, "height_shift": 0.1, "shear": 5.0, "zoom": 0.1, "horizontal_flip": true,
   "crop_area": 1.0, "crop_aspect": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "cutout": 0.0
  },
  "optimizer": "rmsprop", "learning_rate": 0.002, "momentum": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0,
  "schedule": "cosine", "warmup_epochs": 0.5, "epochs": 6, "patience": 0, "validate_every": 1, "batch_size": 64,
  "precision": "auto", "deterministic": false, "seed": 0
 },
 "dataset": "pets", "dataset_sha256": "0000000000000000000000000000000000000000000000000000000000000000",
 "classes": ["cat", "dog"],
 "preprocessing": {
  "image_size": 64, "detail": null, "resize": "bilinear, area beyond half, aspect ratio not kept",
  "scale": 0.00392156862745098, "mirror": false
 },
 "metrics": {"val_acc": 0.5},
 "agreement": {
  "float32": {
   "photos": 512, "same_labels": 1.0, "largest_difference": 1e-6, "unsure_within": 0.0, "again": 0.0
  }
 },
 "architecture": "",
 "files": {
  "w": {"sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c", "bytes": 7}
 }
}"""


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def register(store: Store, data: bytes = b"weights") -> ModelVersion:
    return registry.register(
        store,
        "catdog",
        {"w": data},
        run="r",
        created="2026-01-01T00:00:00Z",
        code="0",
        recipe=resolve("smoke"),
        dataset="pets",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=Preprocessing(image_size=64),
        metrics={"val_acc": 0.5},
        architecture="",
    )


def test_versions_count_up_and_latest_follows(store):
    first, second = register(store), register(store, b"better")
    assert (first.version, second.version) == (1, 2)
    assert registry.resolve(store, "catdog") == second
    assert registry.resolve(store, "catdog@1") == first
    assert registry.read_file(store, first, "w") == b"weights"


def test_concurrent_registrations_get_different_numbers(store):
    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(lambda i: register(store, bytes([i])).version, range(6)))
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    assert [registry.resolve(store, f"catdog@{n}").version for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert registry.resolve(store, "catdog@latest").version == 6


class Interrupted(FolderStore):
    """A store in which another run registers a version while `latest` is moved to version 2."""

    others = 0

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        result = super().get_with_etag(key)
        if self.others and self.exists("models/catdog/versions/2.json"):
            self.others -= 1
            register(FolderStore(self.uri))
        return result


def test_a_registration_that_is_overtaken_succeeds(tmp_path):
    register(FolderStore(str(tmp_path)))
    store = Interrupted(str(tmp_path))
    store.others = 1
    assert register(store).version == 2
    assert registry.resolve(store, "catdog").version == 3


def test_latest_never_goes_back(tmp_path):
    class Slow(FolderStore):
        """Another run registers after this one's version and before its move of `latest`."""

        def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
            written = super().put_if_absent(key, data, sha256)
            if written and key.endswith("versions/2.json"):
                register(FolderStore(self.uri))
            return written

    register(FolderStore(str(tmp_path)))
    register(Slow(str(tmp_path)))
    assert registry.resolve(FolderStore(str(tmp_path)), "catdog").version == 3


def test_promotion_moves_a_ref_and_returns_where_it_was(store):
    register(store)
    register(store)
    assert registry.move_ref(store, "catdog", "production", 1) is None
    assert registry.move_ref(store, "catdog", "production", 2) == 1
    assert registry.resolve(store, "catdog@production").version == 2
    with pytest.raises(UsageError, match="can't be a number"):
        registry.move_ref(store, "catdog", "7", 1)


def test_a_promotion_that_is_overtaken_is_a_conflict(tmp_path):
    class Overtaken(FolderStore):
        """A store in which somebody else promotes just after the ref was read."""

        def get_with_etag(self, key: str) -> tuple[bytes, str]:
            result = super().get_with_etag(key)
            super().put(key, records.seal(key, Ref(target="2")))
            return result

    store = FolderStore(str(tmp_path))
    for _ in range(3):
        register(store)
    registry.move_ref(store, "catdog", "production", 1)
    with pytest.raises(ConflictError, match="catdog@production at the same time"):
        registry.move_ref(Overtaken(str(tmp_path)), "catdog", "production", 3)
    assert registry.resolve(store, "catdog@production").version == 2


def test_a_ref_points_at_a_version_that_exists(store):
    register(store)
    with pytest.raises(NotFoundError):
        registry.move_ref(store, "catdog", "production", 77)


def test_changed_weights_are_refused(store, tmp_path):
    version = register(store)
    (tmp_path / "models" / "catdog" / "files" / version.files["w"].sha256).write_bytes(b"other")
    with pytest.raises(IntegrityError, match="was changed"):
        registry.read_file(store, version, "w")


def test_registering_the_same_weights_again_puts_a_damaged_file_right(store):
    version = register(store)
    key = f"models/catdog/files/{version.files['w'].sha256}"
    for damaged in (b"", b"weightz"):
        store.put(key, damaged)
        register(store)
        assert registry.read_file(store, version, "w") == b"weights"


def test_a_number_is_never_used_twice(store):
    register(store)
    register(store)
    store.delete("models/catdog/versions/2.json")
    with pytest.raises(IntegrityError, match=r"versions/2\.json is missing"):
        registry.resolve(store, "catdog@2")
    assert register(store).version == 3


def test_a_file_that_a_version_does_not_have_is_not_found(store):
    register(store)
    with pytest.raises(NotFoundError, match="no such file"):
        registry.read_file(store, registry.resolve(store, "catdog"), "nope")


def test_unknown_names_are_reported_with_the_known_ones(store):
    with pytest.raises(NotFoundError, match="none exist yet"):
        registry.resolve(store, "catdog")
    register(store)
    with pytest.raises(NotFoundError, match="did you mean 'catdog'"):
        registry.resolve(store, "catdogs")
    with pytest.raises(NotFoundError, match="pawcast promote catdog latest production"):
        registry.resolve(store, "catdog@production")
    with pytest.raises(NotFoundError):
        registry.resolve(store, "catdog@9")
    with pytest.raises(UsageError, match="Invalid name"):
        registry.resolve(store, "../x@latest")
    with pytest.raises(UsageError, match="Invalid name"):
        registry.resolve(store, "catdog@²")


@pytest.mark.parametrize(("ref", "source"), [("production", "latest"), ("latest", "2")])
@pytest.mark.parametrize("broken", [True, False], ids=["broken", "missing"])
def test_the_advice_for_a_broken_or_missing_ref_works(store, ref, source, broken):
    register(store)
    register(store)
    key = f"models/catdog/refs/{ref}"
    store.delete(key)
    if broken:
        store.put(key, b"zzz")
    error = IntegrityError if broken or ref == "latest" else NotFoundError
    with pytest.raises(error, match=f"pawcast promote catdog {source} {ref}"):
        registry.resolve(store, f"catdog@{ref}")
    version = registry.resolve(store, f"catdog@{source}").version
    assert registry.move_ref(store, "catdog", ref, version) is None
    assert registry.resolve(store, f"catdog@{ref}").version == 2


def test_a_version_that_an_earlier_pawcast_registered_says_to_train_again(store):
    store.put("models/catdog/versions/1.json", RECORD_OF_SCHEMA_1.encode())
    store.put("models/catdog/refs/latest", b"1")
    for name in ("catdog", "catdog@1"):
        with pytest.raises(IntegrityError, match=r"written by an earlier version of Pawcast\..*Fix: ") as caught:
            registry.resolve(store, name)
        assert "\n" not in str(caught.value)


def test_a_new_version_can_be_registered_beside_an_earlier_record(store):
    store.put("models/catdog/versions/1.json", RECORD_OF_SCHEMA_1.encode())
    store.put("models/catdog/refs/latest", b"1")
    assert register(store).version == 2
    assert registry.resolve(store, "catdog").version == 2
