"""The float32 fallback: its margin, and the photos that are computed again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawcast.inference.precision import fallback


@pytest.mark.parametrize(
    ("float32_scores", "bfloat16_scores", "margin"),
    [
        ([0.1, 0.6], [0.1, 0.6], 0.0),
        ([0.1, 0.6], [0.1, 0.604], 0.01),  # too small a shift to leave the tolerance, but a label may change
        ([0.2, 0.6], [0.2, 0.59], 0.24),  # a shift that moves 0.6 by 0.01 moves 0.74 by less
        ([0.2, 0.6], [0.21, 0.6], 0.35),
        ([0.5001], [0.4999], 0.01),  # another label
        ([0.95, 0.5], [0.93, 0.5], 0.44),  # beyond the tolerance, however sure
        ([0.61], [0.6], 0.25),
        ([0.0], [1.0], 0.51),
        ([0.5], [1.0], 0.51),
        ([0.0, 1.0], [0.0, 1.0], 0.0),
    ],
)
def test_the_margin_is_the_smallest_that_leaves_no_score_wrong(float32_scores, bfloat16_scores, margin):
    exact, rounded = np.array(float32_scores, np.float32), np.array(bfloat16_scores, np.float32)
    result = fallback.fallback_margin(rounded, exact, 0.01)
    assert result == pytest.approx(margin)
    kept = ~fallback.needs_fallback(rounded, result)
    assert (np.abs(rounded - exact)[kept] <= 0.01).all()
    assert ((rounded > 0.5) == (exact > 0.5))[kept].all()


@given(seed=st.integers(0, 2**32 - 1), furthest=st.floats(1e-4, 0.5), tolerance=st.floats(0.003, 0.05))
def test_other_photos_whose_log_odds_move_a_quarter_further_are_right_as_well(seed, furthest, tolerance):
    def shifted(scores: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.log(scores / (1 - scores)) - shifts))

    random = np.random.default_rng(seed)
    seen = random.uniform(0.15, 0.85, 300)
    shifts = random.uniform(-furthest, furthest, 300)
    shifts[0] = furthest
    margin = fallback.fallback_margin(shifted(seen, shifts), seen, tolerance)
    others = np.linspace(0.001, 0.999, 4_001)
    for sign in (-1, 1):
        scores = shifted(others, np.full(len(others), 1.25 * sign * furthest))
        kept = ~fallback.needs_fallback(scores, margin)
        assert ((scores > 0.5) == (others > 0.5))[kept].all()
        # The slope of the sigmoid isn't constant over the shift.
        assert np.abs(scores - others)[kept].max(initial=0.0) <= tolerance * (1 + furthest)
