"""A run's record: what it is a function of, written down before it begins and never changed.

runs/RUN/run.json       configuration, data digest and code: what `RunRecord` holds
runs/RUN/attempt.json   which attempt may write checkpoints: the latest, so that two at once do each other no harm
runs/RUN/result.json    the version that it became; a run that has it is over
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

import pawcast
from pawcast.core import names
from pawcast.data.manifest import Manifest
from pawcast.errors import ConflictError, NotFoundError, UsageError, suggest
from pawcast.recipes.schema import Recipe
from pawcast.store import Store


class Workers(BaseModel):
    """How many workers, and what each gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = 2
    cpus: float = 1.0
    gpus: float = 0.0


class RunRecord(BaseModel):
    """What a run is: with the same three, recipe, data and code, it gives the same weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """Take a run's name by writing down what it is; the name then belongs to this configuration for ever.

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
        over = store.exists(_result_key(record.run))
        raise ConflictError(
            "The run's name is taken",
            received=repr(record.run),
            fix="choose another --run" + ("" if over else f", or go on with it: --resume {record.run}"),
        )
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
        raise ConflictError("The run is over", received=repr(run), expected=f"one to go on with; it became {version}")
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
    """Write down what a run became."""
    store.put(_result_key(run), json.dumps({"version": version}).encode())


@cache
def code_digest() -> str:
    """sha256 over Pawcast's own sources, 64 hexadecimal digits."""
    root = Path(pawcast.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _record_key(run: str) -> str:
    return f"runs/{run}/run.json"


def _result_key(run: str) -> str:
    return f"runs/{run}/result.json"
