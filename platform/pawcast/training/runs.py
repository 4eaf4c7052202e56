"""A run's record: what its result depends on, written before it begins and never changed.

runs/RUN/run.json       recipe, data digest, code and workers: a `RunRecord`
runs/RUN/result.json    the model version that came of the run, and the sha256 of the run's files:
                        a `RunResult`; a run that has it is over
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

import pawcast
from pawcast.core import names
from pawcast.core.records import Record
from pawcast.data import manifest as manifests
from pawcast.data.manifest import Manifest
from pawcast.errors import ConflictError, IntegrityError, NotFoundError, suggest
from pawcast.recipes.schema import Recipe
from pawcast.store import Store, records
from pawcast.training import checkpoint, lease


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


class RunResult(Record):
    """What came of a run: a model version, and the sha256 of each of the run's files by name."""

    version: str
    files: dict[str, str]


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
    if not records.create(store, _record_key(record.run), record):
        is_over = store.exists(_result_key(record.run))
        raise ConflictError(
            "The run's name is taken",
            received=repr(record.run),
            fix="choose another --run" + ("" if is_over else f", or go on with it: --resume {record.run}"),
        )
    return record


def load(store: Store, run: str) -> RunRecord:
    """Read the record of a run that isn't over.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: If it is over.
        IntegrityError: If a record of it is missing or was changed, or another version of Pawcast
            wrote it.
    """
    _require(store, run)
    if result := read_result(store, run):
        raise ConflictError(
            "The run is over", received=f"{run!r}, which became {result.version}", expected="a run that was stopped"
        )
    return _read_record(store, run)


def finish(store: Store, run: str, version: str) -> None:
    """Write down the model version that came of a run, and the sha256 of the run's files."""
    folder = f"runs/{run}/"
    # Records prove themselves, and each checkpoint has one.
    proven = ("run.json", "attempt.json", "result.json")
    files = [key.removeprefix(folder) for key in store.list(folder)]
    files = [name for name in files if "/" not in name and name not in proven]
    digests = {name: hashlib.sha256(store.get(folder + name)).hexdigest() for name in files}
    records.write(store, _result_key(run), RunResult(version=version, files=digests))


def read_result(store: Store, run: str) -> RunResult | None:
    """Return the result of a run; None if it isn't over. Raises `IntegrityError` if damaged."""
    if not store.exists(_result_key(run)):
        return None
    fix = f"delete it, then resume the run: pawcast train --resume {run}"
    return records.read(store, _result_key(run), RunResult, fix)


def objects(store: Store, run: str) -> Iterator[records.Read]:
    """Yield every object of a run, with the manifest of its dataset, and how to read it.

    Raises:
        NotFoundError: If there is no such run.
    """
    _require(store, run)
    yield _record_key(run), partial(_read_record, store, run)
    with suppress(IntegrityError):
        record = _read_record(store, run)
        name = f"{record.dataset}@{record.dataset_sha256}"
        yield manifests.manifest_key(record.dataset, record.dataset_sha256), partial(manifests.load, store, name)
    checkpoints = list(checkpoint.objects(store, run))
    if checkpoints or store.exists(lease.key_of(run)):
        yield lease.key_of(run), partial(lease.holder, store, run)
    yield from checkpoints
    if not store.exists(_result_key(run)):
        return
    yield _result_key(run), partial(read_result, store, run)
    with suppress(IntegrityError):
        result = read_result(store, run)
        for name, sha256 in result.files.items() if result else ():
            key = f"runs/{run}/{name}"
            yield key, partial(records.read_content, store, key, sha256, "train again")


def _require(store: Store, run: str) -> None:
    names.check("run", run)
    known = {key.split("/")[1] for key in store.list("runs/")}
    if run not in known:
        raise NotFoundError("No such run", received=repr(run), expected=suggest(run, known))


def _read_record(store: Store, run: str) -> RunRecord:
    return records.read(store, _record_key(run), RunRecord, "train again, with another --run")


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
