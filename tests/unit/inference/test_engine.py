"""Engines: the precision that is served, the fallback, and what an engine says of itself."""

from __future__ import annotations

import pytest

from pawcast.errors import UsageError
from pawcast.inference.batcher import MAX_CONCURRENT_BATCHES
from pawcast.inference.compiled import CompiledModel
from pawcast.inference.engine import Engine
from pawcast.registry import Parity
from pawcast.runtime import devices
from pawcast.vision.preprocess import Preprocessing
from tests.support.networks import flat, noise
from tests.support.served import version

PREPROCESSING = Preprocessing(image_size=48)


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


def test_an_engine_says_what_it_runs_on():
    info = Engine(version(48), flat(), "float32").info
    assert info["framework"].startswith("Keras 3")
    assert info["precision"] == "float32"
    assert info["max_concurrent_batches"] == MAX_CONCURRENT_BATCHES
    assert info["max_batch"] >= 1


def test_another_precision_is_refused():
    with pytest.raises(UsageError, match="float16"):
        Engine(version(48), flat(), "float16")
