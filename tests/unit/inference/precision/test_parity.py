"""Parity with Keras: measured on a split, recorded with the version, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from pawcast import registry
from pawcast.data import shards
from pawcast.data.manifest import Split
from pawcast.data.shards import PhotoRow
from pawcast.errors import TrainingError
from pawcast.inference.engine import Engine, build_network
from pawcast.inference.precision import parity
from pawcast.models import weights as weights_file
from pawcast.recipes import resolve
from pawcast.registry import WEIGHTS, ModelVersion, Parity
from pawcast.store import Store, open_store, records
from pawcast.vision.preprocess import Preprocessing
from tests.support.files import encode
from tests.support.served import weights

PHOTOS = 70
RECIPE = resolve("smoke", ["image_size=32"])
PREPROCESSING = Preprocessing(image_size=32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def split(store: Store) -> Split:
    """Noise in two shards, one for each class."""
    rng = np.random.default_rng(1)
    written = []
    for label in (0, 1):
        photos = [encode(rng.integers(0, 128 + 127 * label, (40, 30, 3), np.uint8)) for _ in range(PHOTOS // 2)]
        rows = [PhotoRow(f"{label}.{i}", f"{i}.png", label, "0" * 64, 30, 40, photo) for i, photo in enumerate(photos)]
        written.append(shards.write(store, "pets", "val", rows, ["cat", "dog"]))
    return Split(photos=PHOTOS, per_class={"cat": PHOTOS // 2, "dog": PHOTOS // 2}, shards=written)


@pytest.mark.parametrize("mirror", [False, True])
def test_both_precisions_are_measured(store, split, mirror):
    measured = parity.measure_parity(store, split, RECIPE, weights(1), Preprocessing(image_size=32, mirror=mirror))
    assert list(measured) == ["float32", "bfloat16"]
    for one in measured.values():
        assert one.photos == PHOTOS
        assert one.acceptable
    assert measured["float32"].same_label_share == 1
    assert measured["float32"].max_difference < 1e-6
    assert measured["bfloat16"].max_difference > 1e-6


def test_fewer_photos_are_spread_over_the_split(store, split):
    assert parity.measure_parity(store, split, RECIPE, weights(1), PREPROCESSING, photos=11)["float32"].photos == 11
    (batch,) = parity._batches(store, split, PREPROCESSING, 10)
    assert (batch.max(axis=(1, 2, 3)) < 128).sum() == 5


def test_parity_is_recorded_with_the_version(store, split):
    measured = parity.measure_parity(store, split, RECIPE, weights(1), PREPROCESSING)
    version = register(store, "pets", weights(1), measured)
    assert registry.resolve(store, "pets").parity == measured == version.parity
    assert Engine.load(store, "pets", precision="bfloat16").info["precision"] == "bfloat16"


def test_a_network_with_nan_scores_is_refused(store, split):
    spoilt = changed(lambda values: [*values[:-1], values[-1] * np.nan])
    with pytest.raises(TrainingError, match="NaN or infinite"):
        parity.measure_parity(store, split, RECIPE, spoilt, PREPROCESSING)


@pytest.mark.parametrize(("steepness", "holds"), [(20, False), (300, True)])
def test_a_network_too_steep_for_bfloat16_is_not_acceptable_in_it(store, split, steepness, holds):
    """The network decides by small differences between bright photos, which bfloat16 rounds."""
    (batch,) = parity._batches(store, split, PREPROCESSING, 60)
    score = np.median(build_network(RECIPE, weights(1))(batch[-20:] / np.float32(255)))
    middle = np.log(score / (1 - score))
    coarse = changed(lambda values: [*values[:-2], values[-2] * steepness, values[-1] - middle * steepness])
    measured = parity.measure_parity(store, split, RECIPE, coarse, PREPROCESSING)
    assert measured["float32"].acceptable
    assert measured["bfloat16"].fallback_margin > 0.4
    # The steeper the network, the fewer photos lie near one half and are computed again.
    assert (measured["bfloat16"].fallback_share <= 0.25) is holds
    assert measured["bfloat16"].acceptable is holds


def test_a_network_that_differs_in_float32_is_refused(store, split, monkeypatch):
    """As if a kernel of this machine were wrong: the compiled model sees photos upside down."""
    right = parity.CompiledModel.__call__
    monkeypatch.setattr(parity.CompiledModel, "__call__", lambda self, pixels: right(self, pixels[:, ::-1]))
    with pytest.raises(TrainingError, match=r"was not registered. Received: .* Expected: 99.9% equal, within 0.01"):
        parity.measure_parity(store, split, RECIPE, weights(1), PREPROCESSING)


@pytest.mark.parametrize(
    ("same", "difference", "holds"),
    [(1.0, 0.0, True), (0.999, 0.01, True), (0.9989, 0.0, False), (1.0, 0.0101, False)],
)
def test_the_limits_of_acceptable_parity(same, difference, holds):
    assert Parity(photos=1_000, same_label_share=same, max_difference=difference).acceptable is holds


@pytest.mark.parametrize(("again", "holds"), [(0.25, True), (0.26, False)])
def test_a_large_fallback_share_is_not_acceptable(again, holds):
    assert Parity(photos=1_000, same_label_share=1.0, max_difference=0.0, fallback_share=again).acceptable is holds


def test_parity_in_bfloat16_is_that_of_scores_with_the_fallback():
    exact = np.array([0.02, 0.52, 0.53, 0.98], np.float32)
    coarse = np.array([0.021, 0.499, 0.535, 0.979], np.float32)
    measured = parity.compare_with_fallback(exact, exact, coarse)
    assert (measured.same_label_share, measured.fallback_share, measured.acceptable) == (1.0, 0.5, False)
    # A log-odds shift of 0.1 moves scores within 0.39 of one half by more than 0.01.
    assert measured.fallback_margin == pytest.approx(0.4)
    assert measured.max_difference == pytest.approx(0.001, abs=1e-6)
    assert str(measured).endswith("50.0% of them computed again")


def test_scores_are_compared_photo_by_photo():
    measured = parity.compare_scores(np.array([0.2, 0.51, 0.9], np.float32), np.array([0.2, 0.495, 0.9], np.float32))
    assert measured.same_label_share == pytest.approx(2 / 3)
    assert measured.max_difference == pytest.approx(0.015, abs=1e-6)


def test_version_records_without_parity_are_read(store):
    version = register(store, "old", b"")
    key = "models/old/versions/1.json"
    record = json.loads(store.get(key))
    del record["sha256"], record["parity"], record["preprocessing"]["mirror"]
    records.write(store, key, record)
    assert registry.resolve(store, "old") == version
    assert version.parity is None
    assert not version.preprocessing.mirror


def register(store: Store, model: str, content: bytes, measured: dict | None = None) -> ModelVersion:
    return registry.register(
        store,
        model,
        {WEIGHTS: content},
        run="r",
        created="2026-01-01T00:00:00Z",
        code="0",
        recipe=RECIPE,
        dataset="pets",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=PREPROCESSING,
        metrics={},
        architecture="",
        parity=measured,
    )


def changed(change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> bytes:
    """Return changed weights of a network; the last two are those of its last layer."""
    network = build_network(RECIPE, weights(1))
    network.set_weights(change(network.get_weights()))
    return weights_file.dump(network)
