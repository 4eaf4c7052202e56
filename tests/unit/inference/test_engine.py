"""Engines: the precision that is served, the fallback, and what an engine says of itself."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.errors import UsageError
from pawcast.inference.batcher import MAX_CONCURRENT_BATCHES
from pawcast.inference.compiled import CompiledModel
from pawcast.inference.engine import Engine, choose_precision
from pawcast.registry import Parity
from pawcast.runtime import devices
from pawcast.runtime.tensorflow import tf
from pawcast.vision.preprocess import Preprocessing
from tests.support.networks import flat, noise
from tests.support.served import version

PREPROCESSING = Preprocessing(image_size=48)
GOOD = Parity(photos=1_000, same_label_share=1.0, max_difference=0.001)
POOR = Parity(photos=1_000, same_label_share=0.99, max_difference=0.001)


@pytest.mark.parametrize(
    ("flags", "requested", "parity", "precision"),
    [
        ("amx_bf16", "auto", {"float32": GOOD, "bfloat16": GOOD}, "bfloat16"),
        ("amx_bf16", "auto", {"float32": GOOD, "bfloat16": POOR}, "float32"),
        ("amx_bf16", "auto", None, "float32"),
        ("avx2", "auto", {"float32": GOOD, "bfloat16": GOOD}, "float32"),
        ("avx2", "bfloat16", None, "bfloat16"),
        ("amx_bf16", "float32", {"float32": GOOD, "bfloat16": GOOD}, "float32"),
    ],
)
def test_bfloat16_is_served_where_it_is_fast_and_parity_is_acceptable(
    tmp_path, monkeypatch, flags, requested, parity, precision
):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(devices, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert choose_precision(version(48, parity=parity), requested) == precision


def test_photos_within_the_fallback_margin_of_the_version_get_float32_scores(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : amx_bf16\n")
    monkeypatch.setattr(devices, "_CPUINFO", cpuinfo)
    measured = Parity(
        photos=1_000, same_label_share=1.0, max_difference=0.005, fallback_margin=0.51, fallback_share=0.2
    )
    network, photos = flat(), noise(3, 48)
    for requested, share in (("auto", 0.2), ("bfloat16", 0.2), ("float32", 0.0)):
        engine = Engine(version(48, parity={"bfloat16": measured}), network, requested)
        assert engine.info["fallback_share"] == share
        # Within 0.51 of one half is every photo.
        assert engine.predict(photos).tobytes() == CompiledModel(network, PREPROCESSING, "float32")(photos).tobytes()
    plain = Engine(version(48), network, "bfloat16")
    assert plain.info["fallback_share"] == 0.0
    assert plain.info["precision"] == "bfloat16"
    assert plain.predict(photos).tobytes() == CompiledModel(network, PREPROCESSING, "bfloat16")(photos).tobytes()


def test_photos_within_the_margin_get_float32_scores_and_others_bfloat16_scores_in_every_batch():
    network, photos = flat(), noise(20, 48)
    low, high = (CompiledModel(network, PREPROCESSING, precision)(photos) for precision in ("bfloat16", "float32"))
    margin = float(np.median(np.abs(low - 0.5)))
    unsure = np.abs(low - 0.5) < margin
    assert unsure.sum() == 10
    assert (low != high).all()
    engine = Engine(
        version(48, parity={"bfloat16": GOOD.model_copy(update={"fallback_margin": margin})}), network, "bfloat16"
    )
    expected = np.where(unsure, high, low)
    assert engine.predict(photos).tobytes() == expected.tobytes()
    assert np.concatenate([engine.predict(photo[None]) for photo in photos]).tobytes() == expected.tobytes()
    assert engine.predict(photos[unsure]).tobytes() == high[unsure].tobytes()
    assert engine.predict(photos[:0]).shape == (0,)


def test_an_engine_says_what_it_runs_on():
    info = Engine(version(48), flat(), "float32").info
    assert info["framework"].startswith("Keras 3")
    assert info["precision"] == "float32"
    assert info["max_concurrent_batches"] == MAX_CONCURRENT_BATCHES
    assert info["max_batch"] >= 1


def test_another_precision_is_refused():
    with pytest.raises(UsageError, match="float16"):
        Engine(version(48), flat(), "float16")
