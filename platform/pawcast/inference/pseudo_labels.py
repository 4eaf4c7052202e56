"""Pseudo-labels: a model's surest predictions become labels, so that another learns from the unlabelled photos too.

D.-H. Lee, "Pseudo-Label: the simple and efficient semi-supervised learning method for deep neural networks" (2013).
Who learns from them may be larger than who made them: Q. Xie et al., 2019, https://arxiv.org/abs/1911.04252.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import tee
from typing import NamedTuple

import numpy as np

from pawcast.core import names
from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, PseudoLabels, Shard, Split
from pawcast.data.report import DataReport
from pawcast.errors import DataError, ImageError, UsageError
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.store import Store

_JUDGED = ("val", "test")


class PseudoLabelled(NamedTuple):
    """What came of it: the published dataset, how many photos joined by class, and how many did not.

    Attributes:
        manifest: The dataset.
        made: What it says of its pseudo-labels.
        joined: Photos by class.
        unsure: Photos of which the model wasn't sure enough.
        copies: Copies of labelled photos, and what looks like one of validation or test, which it would spoil.
    """

    manifest: Manifest
    made: PseudoLabels
    joined: dict[str, int]
    unsure: int
    copies: int


def pseudo_label(
    store: Store,
    engine: Engine,
    dataset: str,
    right: float = 0.995,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> PseudoLabelled:
    """Publish the model's own dataset again, its training split grown by the unlabelled photos that it is sure of.

    Validation, test and the unlabelled split stay as they are, down to their shards.

    Args:
        store: Where dataset and model are.
        engine: The model that labels.
        dataset: The new dataset's name.
        right: Sure enough is what makes the model right about this share of the validation photos, in [0.5, 1].
        progress: Called with a stage's name, photos done and photos in all.

    Raises:
        UsageError: If the new dataset has the old one's name.
        DataError: If there are no unlabelled photos, or the model is never right that often.
    """
    names.check("dataset", dataset)
    version = engine.version
    base = manifests.load(store, f"{version.dataset}@{version.dataset_sha256}")
    if base.pseudo_labels:
        # A second generation labels the photos anew.
        base = manifests.load(store, base.pseudo_labels.dataset)
    if dataset == base.dataset:
        raise UsageError("The new dataset needs a name of its own", received=f"{dataset!r}, the model's own dataset")
    if not base.splits["unlabelled"].photos:
        raise DataError(
            f"{base.dataset}@{base.digest[:12]} has no unlabelled photos", fix="ingest it again with --unlabelled"
        )
    since = manifests.read_latest(store, dataset)
    confidence = _sure_enough(store, engine, base, right, progress)
    apart = _apart(store, base)
    counts: Counter[str] = Counter()

    def sure_rows() -> Iterator[shards.PhotoRow]:
        for row, score in _scored(store, engine, base.splits["unlabelled"], "labelling", progress):
            if row.sha256 in apart or row.name in apart:
                counts["copies"] += 1
            elif max(score, 1 - score) < confidence:
                counts["unsure"] += 1
            else:
                yield row._replace(label=int(score > 0.5))

    written, labels = _write(store, dataset, base.classes, sure_rows())
    report = store.get(manifests.report_key(base.dataset, base.report_sha256))
    store.put_if_absent(manifests.report_key(dataset, base.report_sha256), report)
    joined = {name: labels[i] for i, name in enumerate(base.classes)}
    old = base.splits["train"]
    train = Split(
        photos=old.photos + labels.total(),
        per_class={name: old.per_class.get(name, 0) + joined[name] for name in base.classes},
        shards=[*old.shards, *written],
    )
    made = PseudoLabels(
        dataset=f"{base.dataset}@{base.digest}", model=version.name, confidence=confidence, photos=labels.total()
    )
    manifest = base.model_copy(
        update={"dataset": dataset, "splits": base.splits | {"train": train}, "pseudo_labels": made}
    )
    manifests.publish(store, manifest, since)
    return PseudoLabelled(manifest, made, joined, counts["unsure"], counts["copies"])


def confidence_for(probabilities: np.ndarray, labels: np.ndarray, right: float) -> float | None:
    """Return the least confidence from which on a model is right often enough; None if there is none.

    Args:
        probabilities: float [n] in [0, 1], of class 1.
        labels: int [n], 0 or 1.
        right: The share, in [0, 1].

    Example:
        >>> confidence_for(np.array([0.9, 0.2, 0.3, 0.6]), np.array([1, 0, 0, 0]), right=1.0)
        0.7
    """
    confidence = np.maximum(probabilities, 1 - probabilities)
    order = np.argsort(-confidence)
    correct = ((probabilities > 0.5) == (labels == 1))[order]
    share = np.cumsum(correct) / np.arange(1, len(order) + 1)
    # Who is as sure of another photo is asked about both.
    last = np.diff(confidence[order], append=-1) < 0
    enough = np.flatnonzero((share >= right) & last)
    return float(confidence[order][enough[-1]]) if len(enough) else None


def _sure_enough(
    store: Store, engine: Engine, base: Manifest, right: float, progress: Callable[[str, int, int], None]
) -> float:
    judged = [(score, row.label) for row, score in _scored(store, engine, base.splits["val"], "validating", progress)]
    probabilities, labels = (np.array(column) for column in zip(*judged, strict=True))
    confidence = confidence_for(probabilities, labels, right)
    if confidence is None:
        raise DataError(
            f"{engine.version.name} is never sure enough",
            received=f"right about {((probabilities > 0.5) == labels).mean():.2%} of the validation photos",
            expected=f"right about {right:.2%} of those that it is surest of",
            fix="use a better model, or lower --right",
        )
    return confidence


def _apart(store: Store, base: Manifest) -> set[str]:
    """Hashes of the labelled photos, and names of the unlabelled ones that look like one that judges models."""
    report = DataReport.model_validate_json(store.get(manifests.report_key(base.dataset, base.report_sha256)))
    hashes = {row.sha256 for split in ("train", *_JUDGED) for row in _rows(store, base.splits[split])}
    pairs = [dict(zip(pair.splits, (pair.first, pair.second), strict=True)) for pair in report.near_duplicates]
    return hashes | {
        pair["unlabelled"] for pair in pairs if "unlabelled" in pair and any(split in pair for split in _JUDGED)
    }


def _scored(
    store: Store, engine: Engine, split: Split, stage: str, progress: Callable[[str, int, int], None]
) -> Iterator[tuple[shards.PhotoRow, float]]:
    """Yield a split's photos with the probability of class 1; ingest has left out what can't be decoded."""
    ours, theirs = tee(_rows(store, split))
    found = zip(ours, predict_scores(engine, (row.data for row in theirs)), strict=True)
    for number, (row, score) in enumerate(found, start=1):
        if not isinstance(score, ImageError):
            yield row, score
        progress(stage, number, split.photos)


def _rows(store: Store, split: Split) -> Iterator[shards.PhotoRow]:
    for shard in split.shards:
        yield from shards.rows(shards.read(store, shard))


def _write(
    store: Store, dataset: str, classes: list[str], rows: Iterator[shards.PhotoRow]
) -> tuple[list[Shard], Counter[int]]:
    """Write rows as shards of `train`, one in memory at a time; return them, and photos by label."""
    written: list[Shard] = []
    labels: Counter[int] = Counter()
    waiting: list[shards.PhotoRow] = []
    room = shards.MAX_BYTES

    def flush() -> None:
        if waiting:
            written.append(shards.write(store, dataset, "train", waiting, classes))
        waiting.clear()

    for row in rows:
        if len(waiting) == shards.MAX_ROWS or len(row.data) > room:
            flush()
            room = shards.MAX_BYTES
        waiting.append(row)
        labels[row.label] += 1
        room -= len(row.data)
    flush()
    return written, labels
