"""How long work reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called whenever part of the work is done.

    `pawcast.core.console.ProgressBars` shows it; `silent` is the default.

    Args:
        stage: The work: one word, such as `decoding`.
        done: How much of it is done, at least 0.
        total: How much there is in all.
        note: A remark for people, such as the current loss.
        unit: What is counted; empty for a stage that is one step, whose count says nothing.
    """

    def __call__(self, stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        """Report progress."""


def silent(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
    """Report nothing."""


class Counter:
    """Adds up the photos that are done in one stage of `total`, and reports the sum each time."""

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._done = 0
        progress(stage, 0, total)

    def __call__(self, photos: int) -> None:
        """Add photos that have just been done."""
        self._done += photos
        self._progress(self._stage, self._done, self._total)
