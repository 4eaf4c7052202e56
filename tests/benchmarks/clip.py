"""What clipping probabilities does to the log loss on photos that a model wasn't trained on.

    python -m tests.benchmarks.clip catdog@3 --store var/store --split test

Prints a table: for each distance from 0 and 1 the log loss, and how many photos were clipped.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from pawcast.core.settings import store_uri
from pawcast.data import manifest as manifests
from pawcast.data.reader import SplitReader
from pawcast.errors import ImageError
from pawcast.evaluation.metrics import log_loss
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.store import open_store

CLIPS = (0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--store")
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    store = open_store(store_uri(options.store))
    engine = Engine.load(store, options.model)
    version = engine.version
    split = manifests.load(store, f"{version.dataset}@{version.dataset_sha256}").splits[options.split]
    labels = np.array([row.label for row in SplitReader(store, split)])
    found = list(predict_scores(engine, (row.data for row in SplitReader(store, split))))
    usable = np.array([not isinstance(score, ImageError) for score in found])
    scores = np.array([score for score in found if not isinstance(score, ImageError)])
    sys.stdout.write("\n".join(table(scores, labels[usable], f"{version.name}, {version.recipe.name}")) + "\n")


def table(scores: np.ndarray, labels: np.ndarray, name: str) -> list[str]:
    """Return the lines of the table."""
    accuracy = np.mean((scores > 0.5) == labels)
    lines = [
        f"{name}: {len(scores):,} photos, accuracy {accuracy:.3f}",
        "",
        "| `--clip` | log loss | photos clipped |",
        "| ---: | ---: | ---: |",
    ]
    for clip in CLIPS:
        clipped = np.mean(np.abs(scores - 0.5) > 0.5 - clip) if clip else 0.0
        # Kaggle itself clips at 1e-15; probabilities have six digits, so none is nearer than 1e-7.
        lines.append(f"| {clip:g} | {log_loss(scores, labels, clip or 1e-7):.4f} | {clipped:.1%} |")
    return lines


if __name__ == "__main__":
    main()
