"""The cascade: what bfloat16 is unsure of is answered by float32, photo by photo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawcast.inference.compiled import CompiledModel
from pawcast.inference.engine import Engine
from pawcast.inference.precision import fallback
from pawcast.registry import Parity
from pawcast.runtime import devices
from pawcast.vision.preprocess import Preprocessing
from tests.support.served import version
from tests.unit.inference.test_compiled import flat, noise

FED = Preprocessing(image_size=48)


@pytest.mark.parametrize(
    ("exact", "coarse", "width"),
    [
        ([0.1, 0.6], [0.1, 0.6], 0.0),
        ([0.1, 0.6], [0.1, 0.604], 0.01),  # odds move by less than anything could be off by; labels may change
        ([0.2, 0.6], [0.2, 0.59], 0.24),  # odds that move by 5% move 0.6 by 0.01, and 0.74 by less
        ([0.2, 0.6], [0.21, 0.6], 0.35),
        ([0.5001], [0.4999], 0.01),  # another label
        ([0.95, 0.5], [0.93, 0.5], 0.44),  # off, however sure
        ([0.61], [0.6], 0.25),
        ([0.0], [1.0], 0.51),
        ([0.5], [1.0], 0.51),
        ([0.0, 1.0], [0.0, 1.0], 0.0),
    ],
)
def test_the_width_is_the_least_that_leaves_nothing_wrong(exact, coarse, width):
    exact, coarse = np.array(exact, np.float32), np.array(coarse, np.float32)
    found = fallback.fallback_margin(coarse, exact, 0.01)
    assert found == pytest.approx(width)
    left = ~fallback.needs_fallback(coarse, found)
    assert (np.abs(coarse - exact)[left] <= 0.01).all()
    assert ((coarse > 0.5) == (exact > 0.5))[left].all()


@given(seed=st.integers(0, 2**32 - 1), furthest=st.floats(1e-4, 0.5), tolerance=st.floats(0.003, 0.05))
def test_other_photos_whose_odds_move_a_quarter_further_are_right_as_well(seed, furthest, tolerance):
    def moved(scores: np.ndarray, moves: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.log(scores / (1 - scores)) - moves))

    random = np.random.default_rng(seed)
    seen = random.uniform(0.15, 0.85, 300)
    moves = random.uniform(-furthest, furthest, 300)
    moves[0] = furthest
    width = fallback.fallback_margin(moved(seen, moves), seen, tolerance)
    others = np.linspace(0.001, 0.999, 4_001)
    for sign in (-1, 1):
        found = moved(others, np.full(len(others), 1.25 * sign * furthest))
        left = ~fallback.needs_fallback(found, width)
        assert ((found > 0.5) == (others > 0.5))[left].all()
        # The slope isn't quite the same all the way.
        assert np.abs(found - others)[left].max(initial=0.0) <= tolerance * (1 + furthest)


def test_the_unsure_are_float32s_and_the_others_bfloat16s_in_any_batch():
    network, photos = flat(), noise(20, 48)
    coarse, exact = (CompiledModel(network, FED, precision) for precision in ("bfloat16", "float32"))
    low, high = coarse(photos), exact(photos)
    within = float(np.median(np.abs(low - 0.5)))
    unsure = np.abs(low - 0.5) < within
    assert unsure.sum() == 10
    assert (low != high).all()
    both = fallback.Float32Fallback(coarse, exact, within)
    expected = np.where(unsure, high, low)
    assert both(photos).tobytes() == expected.tobytes()
    assert np.concatenate([both(photo[None]) for photo in photos]).tobytes() == expected.tobytes()
    assert both(photos[unsure]).tobytes() == high[unsure].tobytes()
    assert both(photos[:0]).shape == (0,)


def test_an_engine_computes_again_what_its_version_was_found_to_need(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : amx_bf16\n")
    monkeypatch.setattr(devices, "_CPUINFO", cpuinfo)
    measured = Parity(
        photos=1_000, same_label_share=1.0, max_difference=0.005, fallback_margin=0.51, fallback_share=0.2
    )
    network, photos = flat(), noise(3, 48)
    for asked, again in (("auto", 0.2), ("bfloat16", 0.2), ("float32", 0.0)):
        engine = Engine(version(48, parity={"bfloat16": measured}), network, asked)
        assert engine.info["fallback_share"] == again
        # Within 0.51 of one half is every photo.
        assert engine.predict(photos).tobytes() == CompiledModel(network, FED, "float32")(photos).tobytes()
    plain = Engine(version(48), network, "bfloat16")
    assert plain.info["fallback_share"] == 0.0
    assert plain.predict(photos).tobytes() == CompiledModel(network, FED, "bfloat16")(photos).tobytes()
