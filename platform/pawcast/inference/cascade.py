"""bfloat16 first, and float32 again for the few photos that it is unsure of.

bfloat16's rounding moves a probability most where the network wavers between the classes; a photo that it is sure of
hardly moves, since there the sigmoid is flat. So photos near one half get a second opinion, and all scores are as good
as float32's at little more than bfloat16's price. How near is near is measured when a version is registered.
"""

from __future__ import annotations

import math

import numpy as np

from pawcast.inference.forward import Forward

TOLERANCE = 0.005
"""Scores further off are computed again: half of what `Agreement` allows, since other photos differ a little more."""
_STEP = 100  # widths are given in hundredths


class Cascade:
    """Runs a network in one precision, and again in another where the first is unsure.

    Each photo's score depends on that photo alone, as those of both passes do.

    Args:
        first: In bfloat16.
        second: The same network in float32.
        unsure_within: Scores nearer than this to one half are computed again; from `width`.
    """

    def __init__(self, first: Forward, second: Forward, unsure_within: float) -> None:
        self._first, self._second, self._within = first, second, unsure_within

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of class 1: uint8 [n, S, S, 3] to float32 [n] in [0, 1]."""
        scores = self._first(pixels)
        again = unsure(scores, self._within)
        if again.any():
            scores[again] = self._second(pixels[again])
        return scores


def unsure(scores: np.ndarray, within: float) -> np.ndarray:
    """Return which scores, float32 [n], are nearer than `within` to one half: bool [n]."""
    return np.abs(scores - 0.5) < within


def width(coarse: np.ndarray, exact: np.ndarray) -> float:
    """Return how near to one half a score must be computed again, in [0, 0.51]; 0 if none need be.

    The least, in hundredths, that leaves no photo with another label or further off than `TOLERANCE`.

    Args:
        coarse: float32 [n], the scores of photos in bfloat16.
        exact: float32 [n], the same photos' in float32.
    """
    off = (np.abs(coarse - exact) > TOLERANCE) | ((coarse > 0.5) != (exact > 0.5))
    if not off.any():
        return 0.0
    furthest = float(np.abs(coarse[off] - 0.5).max())
    return (math.floor(furthest * _STEP) + 1) / _STEP
