"""Which failures of the workers are tried again, and what the user is told."""

from __future__ import annotations

import re

import pytest
import ray
from ray.train import WorkerGroupError

from pawcast.errors import IntegrityError, PawcastError, StoreError, StoreFullError, TrainingError
from pawcast.training.workers import DifferentWeightsError, _cause

LOST = ray.exceptions.RayActorError()
BROKEN_COLLECTIVE = type("UnavailableError", (Exception,), {"__module__": "tensorflow.python.framework.errors_impl"})


@pytest.mark.parametrize(
    ("failures", "message", "transient"),
    [
        ({0: LOST}, "A training worker was lost .RayActorError", True),
        ({0: BROKEN_COLLECTIVE("connection reset"), 1: LOST}, "lost .UnavailableError.*connection reset", True),
        ({0: StoreError("out of reach")}, "out of reach", True),
        ({1: DifferentWeightsError("different weights")}, "different weights", True),
        ({0: TrainingError("the loss is NaN")}, "the loss is NaN", False),
        ({0: StoreFullError("full")}, "full", False),
        ({0: IntegrityError("changed")}, "changed", False),
        # The mistake explains the other rank's broken collective.
        ({0: BROKEN_COLLECTIVE("reset"), 1: ValueError("first\nlast line")}, "failed .ValueError.*last line", False),
    ],
)
def test_only_failures_that_may_not_come_back_are_tried_again(failures, message, transient):
    cause, is_transient = _cause(WorkerGroupError("failed", failures))
    assert isinstance(cause, PawcastError)
    assert is_transient == transient
    assert re.search(message, str(cause))
