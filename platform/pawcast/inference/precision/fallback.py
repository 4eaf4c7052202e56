"""bfloat16 first, and float32 again for the few photos that it is unsure of.

bfloat16's rounding moves the odds by about as much whatever they are, and so a probability most where the network
wavers between the classes: one it is sure of hardly moves, since there the sigmoid is flat. So photos near one half get
a second opinion, and all scores are nearly as good as float32's at little more than bfloat16's price. How near is near
is worked out from what the rounding did to the odds of the photos that a version was registered with.
"""

from __future__ import annotations

import math

import numpy as np

from pawcast.inference.compiled import CompiledModel

_MARGIN = 1.25  # other photos' odds move further than the furthest of a few hundred
_WAVERING = 0.4  # scores nearer than this to one half show how far odds move
_STEP = 100  # widths are given in hundredths


class Float32Fallback:
    """Runs a network in one precision, and again in another where the first is unsure.

    Each photo's score depends on that photo alone, as those of both passes do.

    Args:
        first: In bfloat16.
        second: The same network in float32.
        fallback_margin: Scores nearer than this to one half are computed again; from `width`.
    """

    def __init__(self, first: CompiledModel, second: CompiledModel, fallback_margin: float) -> None:
        self._first, self._second, self._within = first, second, fallback_margin

    @property
    def batch_sizes(self) -> list[int]:
        """How many photos are computed at once, ascending."""
        return self._first.batch_sizes

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of class 1: uint8 [n, S, S, 3] to float32 [n] in [0, 1]."""
        scores = self._first(pixels)
        again = needs_fallback(scores, self._within)
        if again.any():
            scores[again] = self._second(pixels[again])
        return scores


def needs_fallback(scores: np.ndarray, within: float) -> np.ndarray:
    """Return which scores, float32 [n], are nearer than `within` to one half: bool [n]."""
    return np.abs(scores - 0.5) < within


def fallback_margin(coarse: np.ndarray, exact: np.ndarray, tolerance: float) -> float:
    """Return how near to one half a score must be computed again, in [0, 0.51].

    The least, in hundredths, that leaves no photo with another label or too far off: neither among these photos nor
    among others whose odds move by a quarter more.

    Args:
        coarse: float32 [n], the scores of photos in bfloat16.
        exact: float32 [n], the same photos' in float32.
        tolerance: How far off a score may be, in (0, 1).
    """
    wavering = needs_fallback(exact, _WAVERING)
    moves = np.abs(_log_odds(coarse[wavering]) - _log_odds(exact[wavering]))
    move = _MARGIN * float(moves.max(initial=0.0))
    off = (_MARGIN * np.abs(coarse - exact) > tolerance) | ((coarse > 0.5) != (exact > 0.5))
    furthest = float(np.abs(coarse[off] - 0.5).max(initial=0.0))
    # The sigmoid's slope is p(1 - p): a quarter at one half, where labels change, and low enough at some distance.
    steep = math.sqrt(max(0.0, 0.25 - tolerance / move)) if move else 0.0
    within = min(max(furthest, move / 4, steep), 0.5)
    return (math.floor(within * _STEP) + 1) / _STEP if within else 0.0


def _log_odds(scores: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(scores) - np.log1p(-scores)
