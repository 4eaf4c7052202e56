"""The one way in which long work tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called whenever something is done. `core.console.ProgressBars` is one; `silent` is the default.

    Args:
        stage: What is being done: one word, such as `decoding`.
        done: How much of it is done, at least 0.
        total: How much there is in all.
        note: A remark for people, such as the current loss.
        unit: What is counted.
    """

    def __call__(self, stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        """Take note of it."""
        ...


def silent(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
    """Report nothing."""


class Counter:
    """Adds up photos of one stage and reports the sum.

    Args:
        progress: Whom to tell.
        stage: The stage's name.
        total: Photos in all.
    """

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._done = 0
        progress(stage, 0, total)

    def __call__(self, photos: int) -> None:
        """Count photos that have just been done."""
        self._done += photos
        self._progress(self._stage, self._done, self._total)
