"""Model versions, and refs that point at them.

Layout in the store:

    models/NAME/files/SHA256           the files of versions, named by their content
    models/NAME/versions/N.json        the record of a version, immutable, written after its files
    models/NAME/refs/REF               `latest`, `production`, …: the number of a version
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from pawcast.core import names
from pawcast.core.records import Record
from pawcast.errors import ConflictError, IntegrityError, NotFoundError, UsageError, suggest
from pawcast.recipes.schema import Recipe
from pawcast.runtime.devices import Precision
from pawcast.store import Store, records, refs
from pawcast.vision.preprocess import Preprocessing

WEIGHTS = "model.weights.h5"
"""The name of a version's weights among its files, in Keras's format."""
CURVES = "curves.png"
"""The name of the plot of its training among its files."""

MAX_DIFFERENCE = 0.01
"""How far a served probability may be from the one that Keras computes in float32."""

_ATTEMPTS = 20
_ANOTHER = "promote another version than {} (pawcast promote), or train again (pawcast train)"
_MIN_SAME_LABELS = 0.999
# With more photos than this computed twice, bfloat16 is no faster than float32 alone.
_MAX_FALLBACK_SHARE = 0.25


class FileRecord(Record):
    """A file of a version."""

    sha256: str
    bytes: int


class Parity(Record):
    """How well the served network agrees with Keras, which computes photo by photo in float32.

    Attributes:
        photos: Number of photos compared.
        same_label_share: Share of them with the same label, in [0, 1].
        max_difference: Largest difference of the two probabilities of class 1.
        fallback_margin: bfloat16 only: scores nearer than this to 0.5 are computed again in
            float32.
        fallback_share: Share of photos computed again, in [0, 1].
    """

    photos: int
    same_label_share: float
    max_difference: float
    fallback_margin: float = 0.0
    fallback_share: float = 0.0

    @property
    def acceptable(self) -> bool:
        """Whether the network agrees well enough to be served, and its precision saves time."""
        close = self.same_label_share >= _MIN_SAME_LABELS and self.max_difference <= MAX_DIFFERENCE
        return close and self.fallback_share <= _MAX_FALLBACK_SHARE

    def __str__(self) -> str:
        again = f", {self.fallback_share:.1%} of them computed again" if self.fallback_share else ""
        return f"{self.same_label_share:.2%} of {self.photos:,} labels equal, within {self.max_difference:.2g}{again}"


class ModelVersion(Record):
    """A trained model: how it was made, what input it takes, how good it is, and its files.

    Attributes:
        created: UTC, ISO 8601.
        code: Pawcast's version.
        parity: Measured at registration, for each precision the network may be served in.
        architecture: The network's summary, for people.
    """

    schema_version: Literal[3] = 3
    model: str
    version: int
    run: str
    created: str
    code: str
    recipe: Recipe
    dataset: str
    dataset_sha256: str
    classes: list[str]
    preprocessing: Preprocessing
    metrics: dict[str, float]
    parity: dict[Precision, Parity] | None = None
    architecture: str
    files: dict[str, FileRecord]

    @property
    def name(self) -> str:
        """`model@version`."""
        return f"{self.model}@{self.version}"


def register(store: Store, model: str, files: dict[str, bytes], **facts: Any) -> ModelVersion:
    """Store a model's files, publish its next version and move `latest` to it.

    `facts` are the other fields of `ModelVersion`.

    Raises:
        ConflictError: If other registrations take every number that this call tries.
    """
    names.check("model", model)
    file_records = {}
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        records.write_content(store, _file_key(model, digest), data, digest)
        file_records[name] = FileRecord(sha256=digest, bytes=len(data))
    for _ in range(_ATTEMPTS):
        number = _newest(store, model) + 1
        version = ModelVersion(model=model, version=number, files=file_records, **facts)
        if records.create(store, _version_key(model, number), version):
            refs.advance(store, _ref_key(model, "latest"), number)
            return version
    raise ConflictError(f"No free version number for {model}", fix="try again when fewer runs finish at once")


def find_run(store: Store, model: str, run: str) -> ModelVersion | None:
    """Return the version that a run has registered already, if any, and move `latest` to it.

    The run may have been killed before it noted that. Records that are damaged are passed over.
    """
    for number in sorted(_numbers(store, model), reverse=True):
        with suppress(IntegrityError):
            version = resolve(store, f"{model}@{number}")
            if version.run == run:
                refs.advance(store, _ref_key(model, "latest"), number)
                return version
    return None


def move_ref(store: Store, model: str, ref: str, version: int) -> int | None:
    """Move a ref to a version; return the version that it pointed at before, if any.

    Raises:
        UsageError: If the ref's name is malformed, or a number.
        NotFoundError: If there is no such version.
        ConflictError: If somebody else moves the ref at the same time.
    """
    names.check("ref", ref)
    if ref.isdecimal():
        raise UsageError("A ref can't be a number", received=repr(ref), expected="a word such as production")
    resolve(store, f"{model}@{version}")
    key = _ref_key(model, ref)
    before = refs.read(store, key)
    if not refs.move(store, key, str(version), before):
        raise ConflictError(f"Somebody else moved {model}@{ref} at the same time", fix="look at it, then try again")
    return int(before.target) if before.target else None


def resolve(store: Store, name: str) -> ModelVersion:
    """Return the version that `MODEL@REF`, `MODEL@NUMBER` or `MODEL` (its latest) names.

    Raises:
        UsageError: If the name is malformed.
        NotFoundError: If there is none, naming those that exist.
        IntegrityError: If the ref or the record is missing or was changed, or an earlier Pawcast
            wrote it.
    """
    model, _, ref = name.partition("@")
    names.check("model", model)
    ref = names.check("ref", ref or "latest")
    number = int(ref) if ref.isdecimal() else _target(store, model, ref)
    if ref.isdecimal() and not 1 <= number <= _newest(store, model):
        raise _unknown(store, model, ref)
    return records.read(store, _version_key(model, number), ModelVersion, _ANOTHER.format(f"{model}@{number}"))


def read_file(store: Store, version: ModelVersion, name: str) -> bytes:
    """Return a file of a version after checking its SHA-256.

    Raises:
        NotFoundError: If the version has no such file.
        IntegrityError: If the file was changed.
    """
    if name not in version.files:
        expected = suggest(name, version.files)
        raise NotFoundError(f"{version.name} has no such file", received=repr(name), expected=expected)
    digest = version.files[name].sha256
    return records.read_content(store, _file_key(version.model, digest), digest, _ANOTHER.format(version.name))


def objects(store: Store, model: str) -> Iterator[records.Read]:
    """Yield every object of a model and how to read it.

    Raises:
        NotFoundError: If there is no such model.
    """
    if not (newest := _newest(store, model)):
        raise _unknown(store, model, "latest")
    for name in sorted({"latest", *(key.rpartition("/")[2] for key in store.list(_ref_key(model, "")))}):
        yield _ref_key(model, name), partial(_target, store, model, name)
    for number in range(1, newest + 1):
        name = f"{model}@{number}"
        yield _version_key(model, number), partial(resolve, store, name)
        try:
            version = resolve(store, name)
        except IntegrityError:
            continue
        for file, record in version.files.items():
            yield _file_key(model, record.sha256), partial(read_file, store, version, file)
    for key in store.list(f"models/{model}/evaluations/"):
        yield key, partial(_read_evaluation, store, key)


def _read_evaluation(store: Store, key: str) -> bytes:
    return records.unseal(store, key, store.get(key), "run `pawcast evaluate` again")


def _file_key(model: str, digest: str) -> str:
    return f"models/{model}/files/{digest}"


def _version_key(model: str, number: int) -> str:
    return f"models/{model}/versions/{number}.json"


def _ref_key(model: str, ref: str) -> str:
    return f"models/{model}/refs/{ref}"


def _numbers(store: Store, model: str) -> list[int]:
    keys = store.list(f"models/{model}/versions/")
    stems = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
    return [int(stem) for stem in stems if stem.isdecimal()]


def _newest(store: Store, model: str) -> int:
    """Return the highest number that a version has had; 0 without any."""
    latest = refs.read(store, _ref_key(model, "latest")).target
    return max([int(latest or 0), *_numbers(store, model)])


def _target(store: Store, model: str, ref: str) -> int:
    """Return the number that a ref points at."""
    key = _ref_key(model, ref)
    state = refs.read(store, key)
    if state.target:
        return int(state.target)
    # `latest` exists since the first version.
    if state.etag or (ref == "latest" and _numbers(store, model)):
        raise refs.damage(store, key, state, _promote_command(store, model, ref))
    raise _unknown(store, model, ref)


def _unknown(store: Store, model: str, ref: str) -> NotFoundError:
    models = {key.split("/")[1] for key in store.list("models/") if "/versions/" in key}
    if model not in models:
        fix = "train one with `pawcast train`, or check --store"
        return NotFoundError("Unknown model", received=repr(model), expected=suggest(model, models), fix=fix)
    keys = [*store.list(_ref_key(model, "")), *store.list(f"models/{model}/versions/")]
    known = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
    advice = None if ref.isdecimal() else _promote_command(store, model, ref)
    return NotFoundError(f"{model} has no such version", received=repr(ref), expected=suggest(ref, known), fix=advice)


def _promote_command(store: Store, model: str, ref: str) -> str:
    """Return the command that makes a missing or broken ref point at the newest version."""
    newest = max(_numbers(store, model), default=1) if ref == "latest" else "latest"
    return f"pawcast promote {model} {newest} {ref}"
