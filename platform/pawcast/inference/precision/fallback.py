"""The float32 fallback: photos that bfloat16 is unsure of are computed again in float32.

Rounding to bfloat16 moves a photo's log-odds by about as much whatever they are. So it moves a
probability most near one half, where the sigmoid is steep, and hardly where the network is sure.
Photos within the fallback margin of one half are computed again. The margin is worked out from how
far log-odds moved on the photos that a version was registered with.
"""

from __future__ import annotations

import math

import numpy as np

# Photos that were not measured may shift further than the largest measured shift.
_SAFETY_FACTOR = 1.25
# Only scores within this of one half tell how far log-odds move: others are saturated.
_UNSATURATED = 0.4
# Margins are rounded up to hundredths.
_STEPS = 100


def needs_fallback(scores: np.ndarray, margin: float) -> np.ndarray:
    """Return which scores, float32 [n], are nearer than `margin` to one half: bool [n]."""
    return np.abs(scores - 0.5) < margin


def fallback_margin(bfloat16_scores: np.ndarray, float32_scores: np.ndarray, tolerance: float) -> float:
    """Return the distance from one half within which a score must be computed again, in [0, 0.51].

    The smallest margin, in hundredths, outside of which labels match and scores stay within the
    tolerance, with a quarter to spare.

    Args:
        bfloat16_scores: float32 [n].
        float32_scores: float32 [n], of the same photos.
        tolerance: How far off a score may be, in (0, 1).
    """
    unsaturated = needs_fallback(float32_scores, _UNSATURATED)
    shifts = np.abs(_log_odds(bfloat16_scores[unsaturated]) - _log_odds(float32_scores[unsaturated]))
    shift = _SAFETY_FACTOR * float(shifts.max(initial=0.0))
    beyond_tolerance = _SAFETY_FACTOR * np.abs(bfloat16_scores - float32_scores) > tolerance
    wrong = beyond_tolerance | ((bfloat16_scores > 0.5) != (float32_scores > 0.5))
    furthest_wrong = float(np.abs(bfloat16_scores[wrong] - 0.5).max(initial=0.0))
    # The slope of the sigmoid is p(1 - p). It is 1/4 at one half, where labels change, and falls to
    # tolerance / shift at some distance, beyond which a score stays within the tolerance.
    steep = math.sqrt(max(0.0, 0.25 - tolerance / shift)) if shift else 0.0
    margin = min(max(furthest_wrong, shift / 4, steep), 0.5)
    return (math.floor(margin * _STEPS) + 1) / _STEPS if margin else 0.0


def _log_odds(scores: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(scores) - np.log1p(-scores)
