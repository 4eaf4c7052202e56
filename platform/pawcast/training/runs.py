"""A run's record: what its result depends on, written before it begins and never changed.

runs/RUN/run.json       recipe, data digest, code and workers: a `RunRecord`
runs/RUN/result.json    the model version that came of the run; a run that has it is over
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import ValidationError

import pawcast
from pawcast.core import names
from pawcast.core.records import Record
from pawcast.data.manifest import Manifest
from pawcast.errors import ConflictError, NotFoundError, UsageError, suggest
from pawcast.recipes.schema import Recipe
from pawcast.store import Store


class Workers(Record):
    """How many data-parallel workers there are, and the resources of each.

    Attributes:
        number: Workers of the run.
        cpus: CPUs of a worker; None until `with_cpus` has set it.
        shares_cpus: Whether `with_cpus` has set `cpus`.
        gpus: GPUs of a worker; 0 computes on CPUs.
    """

    number: int = 1
    cpus: float | None = None
    gpus: float = 0.0
    shares_cpus: bool = False

    def replaced_by(self, given: Workers) -> Workers:
        """Return these workers with the fields that `given` was made with, and all others kept.

        A share of a node's CPUs is computed anew for another number of workers or GPUs.
        """
        fields = given.model_dump(exclude_unset=True)
        kept = {"cpus": None, "shares_cpus": False} if self.shares_cpus and fields else {}
        return self.model_copy(update=kept | fields)

    def with_cpus(self, nodes: Sequence[Mapping[str, float]]) -> Workers:
        """Return these workers with a number of CPUs.

        Without one, the workers of a node share all of its CPUs. Workers are counted as if spread
        evenly over the nodes that have CPUs, and GPUs if workers want these; the node with the
        fewest CPUs counts.

        Args:
            nodes: Resources of each node, such as `{"CPU": 8.0, "GPU": 1.0}`.
        """
        if self.cpus is not None:
            return self
        suitable = [node["CPU"] for node in nodes if node.get("CPU", 0) > 0 and node.get("GPU", 0) >= self.gpus]
        if not suitable:
            return self.model_copy(update={"cpus": 1.0, "shares_cpus": True})
        share = min(suitable) / math.ceil(self.number / len(suitable))
        # Ray allows parts of a CPU, but a worker's threads are whole.
        whole = float(math.floor(share)) or math.floor(share * 100) / 100
        return self.model_copy(update={"cpus": whole, "shares_cpus": True})


class RunRecord(Record):
    """What a run is. The same recipe, data and code give the same weights."""

    run: str
    started: str
    code: str
    code_sha256: str
    dataset: str
    dataset_sha256: str
    recipe: Recipe
    pretrained_sha256: str | None = None
    model: str
    workers: Workers


def claim(
    store: Store,
    run: str | None,
    manifest: Manifest,
    recipe: Recipe,
    pretrained: bytes | None,
    model: str,
    workers: Workers,
) -> RunRecord:
    """Write a run's record, which reserves the run's name for ever.

    Args as for `trainer.train`, but `pretrained` is the content of the weights file.

    Raises:
        ConflictError: If the name is taken.
    """
    record = RunRecord(
        run=names.check("run", run or f"{recipe.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"),
        started=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        code=pawcast.__version__,
        code_sha256=code_digest(),
        dataset=manifest.dataset,
        dataset_sha256=manifest.digest,
        recipe=recipe,
        pretrained_sha256=hashlib.sha256(pretrained).hexdigest() if pretrained else None,
        model=model,
        workers=workers,
    )
    if not store.put_if_absent(_record_key(record.run), record.model_dump_json(indent=1).encode()):
        resume = "" if store.exists(_result_key(record.run)) else f", or go on with it: --resume {record.run}"
        raise ConflictError(f"The run's name {record.run!r} is taken", fix=f"choose another --run{resume}")
    return record


def load(store: Store, run: str) -> RunRecord:
    """Read the record of a run that isn't over.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: If it is over.
        UsageError: If another version of Pawcast wrote it.
    """
    names.check("run", run)
    try:
        data = store.get(_record_key(run))
    except NotFoundError:
        known = {key.split("/")[1] for key in store.list("runs/")}
        raise NotFoundError("No such run", received=repr(run), expected=suggest(run, known)) from None
    if store.exists(_result_key(run)):
        version = json.loads(store.get(_result_key(run)))["version"]
        raise ConflictError(f"The run {run!r} is over: it became {version}")
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError:
        raise UsageError(
            f"The run {run!r} was begun by another version of Pawcast",
            received=json.loads(data).get("code"),
            expected=pawcast.__version__,
            fix="train again",
        ) from None


def finish(store: Store, run: str, version: str) -> None:
    """Write down the model version that came of a run."""
    store.put(_result_key(run), json.dumps({"version": version}).encode())


@cache
def code_digest() -> str:
    """Return the sha256 of Pawcast's own sources, 64 hexadecimal digits."""
    root = Path(pawcast.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _record_key(run: str) -> str:
    return f"runs/{run}/run.json"


def _result_key(run: str) -> str:
    return f"runs/{run}/result.json"
