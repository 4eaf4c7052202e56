"""Pseudo-labels: a model's most confident predictions become labels of the unlabelled photos.

D.-H. Lee, "Pseudo-Label: the simple and efficient semi-supervised learning method for deep neural
networks" (2013). The model that trains on them may be larger than the one that made them:
Q. Xie et al., 2019, https://arxiv.org/abs/1911.04252.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from itertools import tee
from typing import NamedTuple

import numpy as np

from pawcast.core import names
from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, PseudoLabels, Split
from pawcast.data.reader import SplitReader
from pawcast.data.report import DataReport
from pawcast.data.shards import PhotoRow
from pawcast.errors import DataError, ImageError, UsageError
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.store import Store

_EVALUATION_SPLITS = {"val", "test"}


class PseudoLabelResult(NamedTuple):
    """What `pseudo_label` made.

    Attributes:
        manifest: The published dataset.
        pseudo_labels: The manifest's record of its pseudo-labels.
        joined: Photos that joined the training split, by class.
        unsure: Unlabelled photos below the confidence threshold.
        copies: Unlabelled photos left out as copies of a labelled photo, or because they look like
            one in `val` or `test`.
    """

    manifest: Manifest
    pseudo_labels: PseudoLabels
    joined: dict[str, int]
    unsure: int
    copies: int


def pseudo_label(
    store: Store, engine: Engine, dataset: str, min_accuracy: float = 0.995, progress: Progress = silent
) -> PseudoLabelResult:
    """Publish the model's own dataset with a larger training split.

    The unlabelled photos of which the model is confident join `train`. The other splits keep their
    shards.

    Args:
        store: The store that holds dataset and model.
        engine: The model that labels.
        dataset: Name of the new dataset.
        min_accuracy: The model counts as confident from the confidence on at which it is right
            about this share of the validation photos, in [0.5, 1].
        progress: Receives the stages `validating` and `labelling`.

    Raises:
        UsageError: If the new dataset has the name of the old one.
        DataError: If there are no unlabelled photos, or the model never reaches `min_accuracy`.
        ConflictError: If `latest` of the new dataset moved meanwhile.
    """
    names.check("dataset", dataset)
    version = engine.version
    base = manifests.load(store, f"{version.dataset}@{version.dataset_sha256}")
    if base.pseudo_labels:
        # The model was trained on pseudo-labels: start again from the dataset without them.
        base = manifests.load(store, base.pseudo_labels.dataset)
    if dataset == base.dataset:
        raise UsageError("The new dataset needs a name of its own", received=dataset, fix="choose another --dataset")
    name = f"{base.dataset}@{base.digest}"
    if not base.splits["unlabelled"].photos:
        raise DataError(f"{name} has no unlabelled photos", fix="run `pawcast ingest` again with --unlabelled")
    since = manifests.read_latest(store, dataset)
    scored = [(score, row.label) for row, score in _scored(store, engine, base.splits["val"], "validating", progress)]
    probabilities, true_labels = (np.array(column) for column in zip(*scored, strict=True))
    threshold = confidence_threshold(probabilities, true_labels, min_accuracy)
    if threshold is None:
        raise DataError(
            f"{version.name} is not accurate enough at any confidence",
            received=f"right about {((probabilities > 0.5) == true_labels).mean():.2%} of the validation photos",
            expected=f"right about {min_accuracy:.2%} of those with the highest confidence",
            fix="use a better model, or lower --min-accuracy",
        )
    labelled_hashes, near_names = _photos_to_exclude(store, base)
    skipped: collections.Counter[str] = collections.Counter()

    def confident_rows() -> Iterator[PhotoRow]:
        for row, score in _scored(store, engine, base.splits["unlabelled"], "labelling", progress):
            if row.sha256 in labelled_hashes or row.name in near_names:
                skipped["copies"] += 1
            elif max(score, 1 - score) < threshold:
                skipped["unsure"] += 1
            else:
                yield row._replace(label=int(score > 0.5))

    new_shards, labels = [], collections.Counter[int]()
    for rows in shards.cut(confident_rows(), lambda row: len(row.data)):
        new_shards.append(shards.write(store, dataset, "train", rows, base.classes))
        labels.update(row.label for row in rows)
    report = store.get(manifests.report_key(base.dataset, base.report_sha256))
    store.put_if_absent(manifests.report_key(dataset, base.report_sha256), report)
    joined = {name: labels[i] for i, name in enumerate(base.classes)}
    old_train = base.splits["train"]
    train = Split(
        photos=old_train.photos + labels.total(),
        per_class={name: old_train.per_class.get(name, 0) + joined[name] for name in base.classes},
        shards=[*old_train.shards, *new_shards],
    )
    record = PseudoLabels(dataset=name, model=version.name, confidence=threshold, photos=labels.total())
    changes = {"dataset": dataset, "splits": base.splits | {"train": train}, "pseudo_labels": record}
    manifest = base.model_copy(update=changes)
    manifests.publish(store, manifest, since)
    return PseudoLabelResult(manifest, record, joined, skipped["unsure"], skipped["copies"])


def confidence_threshold(probabilities: np.ndarray, labels: np.ndarray, min_accuracy: float) -> float | None:
    """Return the lowest confidence from which on a model reaches an accuracy, or None.

    Args:
        probabilities: float [n] in [0, 1], of class 1.
        labels: int [n], 0 or 1.
        min_accuracy: In [0, 1].

    Example:
        >>> confidence_threshold(np.array([0.9, 0.2, 0.3]), np.array([1, 0, 1]), min_accuracy=1.0)
        0.8
    """
    confidence = np.maximum(probabilities, 1 - probabilities)
    order = np.argsort(-confidence)
    correct = ((probabilities > 0.5) == (labels == 1))[order]
    accuracy = np.cumsum(correct) / np.arange(1, len(order) + 1)
    # A threshold takes all photos of equal confidence, so only the last of them can be chosen.
    last = np.diff(confidence[order], append=-1) < 0
    acceptable = np.flatnonzero((accuracy >= min_accuracy) & last)
    return float(confidence[order][acceptable[-1]]) if len(acceptable) else None


def _photos_to_exclude(store: Store, base: Manifest) -> tuple[set[str], set[str]]:
    """Return hashes of labelled photos, and names of near duplicates of `val` and `test`."""
    report = DataReport.model_validate_json(store.get(manifests.report_key(base.dataset, base.report_sha256)))
    hashes = {row.sha256 for split in ("train", *_EVALUATION_SPLITS) for row in SplitReader(store, base.splits[split])}
    pairs = [dict(zip(pair.splits, (pair.first, pair.second), strict=True)) for pair in report.near_duplicates]
    near = {pair["unlabelled"] for pair in pairs if "unlabelled" in pair and pair.keys() & _EVALUATION_SPLITS}
    return hashes, near


def _scored(
    store: Store, engine: Engine, split: Split, stage: str, progress: Progress
) -> Iterator[tuple[PhotoRow, float]]:
    """Yield the photos of a split with their probability of class 1."""
    rows, copies = tee(SplitReader(store, split))
    count = Counter(progress, stage, split.photos)
    for row, score in zip(rows, predict_scores(engine, (row.data for row in copies)), strict=True):
        # Ingest has left out what it can't decode, but the decoder may have changed since.
        if not isinstance(score, ImageError):
            yield row, score
        count(1)
