"""Model versions, and refs that point at them.

Layout in the store:

    models/NAME/files/SHA256           the files of versions, named by their content
    models/NAME/versions/N.json        the record of a version, immutable, written after its files
    models/NAME/refs/REF               `latest`, `production`, …: the number of a version
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field

from pawcast.core import names
from pawcast.core.records import Record
from pawcast.errors import ConflictError, IntegrityError, NotFoundError, UsageError, suggest
from pawcast.recipes.schema import Recipe
from pawcast.runtime.devices import Precision
from pawcast.store import Store, records, refs
from pawcast.vision.preprocess import Preprocessing

WEIGHTS = "model.weights.h5"
"""The name of a version's weights among its files, in Keras's format."""

MAX_DIFFERENCE = 0.01
"""How far a served probability may be from the one that Keras computes in float32."""

_ATTEMPTS = 20
_MIN_SAME_LABELS = 0.999
# With more photos than this computed twice, bfloat16 is no faster than float32 alone.
_MAX_FALLBACK_SHARE = 0.25


class FileRecord(Record):
    """A file of a version."""

    sha256: str
    bytes: int


class Parity(Record):
    """How well the served network agrees with Keras, which computes photo by photo in float32."""

    photos: int = Field(description="number of photos compared")
    same_label_share: float = Field(description="share of them with the same label, in [0, 1]")
    max_difference: float = Field(description="largest difference of the two probabilities of class 1")
    fallback_margin: float = Field(
        default=0.0, description="bfloat16 only: scores nearer than this to 0.5 are computed again in float32"
    )
    fallback_share: float = Field(default=0.0, description="share of photos computed again, in [0, 1]")

    @property
    def acceptable(self) -> bool:
        """Whether the network agrees well enough to be served, and its precision saves time."""
        close = self.same_label_share >= _MIN_SAME_LABELS and self.max_difference <= MAX_DIFFERENCE
        return close and self.fallback_share <= _MAX_FALLBACK_SHARE

    def __str__(self) -> str:
        fallback = f", {self.fallback_share:.1%} of them computed again" if self.fallback_share else ""
        return (
            f"{self.same_label_share:.2%} of {self.photos:,} labels equal, within {self.max_difference:.2g}{fallback}"
        )


class ModelVersion(Record):
    """A trained model: how it was made, what input it takes, how good it is, and its files."""

    schema_version: Literal[2] = 2
    model: str
    version: int
    run: str
    created: str = Field(description="UTC, ISO 8601")
    code: str = Field(description="Pawcast's version")
    recipe: Recipe
    dataset: str
    dataset_sha256: str
    classes: list[str]
    preprocessing: Preprocessing
    metrics: dict[str, float]
    parity: dict[Precision, Parity] | None = Field(
        default=None, description="measured at registration, for each precision the network may be served in"
    )
    architecture: str = Field(description="the network's summary, for people")
    files: dict[str, FileRecord]

    @property
    def name(self) -> str:
        """`model@version`."""
        return f"{self.model}@{self.version}"


def register(store: Store, model: str, files: dict[str, bytes], **facts: Any) -> ModelVersion:
    """Store a model's files, publish its next version and move `latest` to it.

    Args:
        store: Where the registry is.
        model: The model's name.
        files: The content of the version's files, by name.
        **facts: The other fields of `ModelVersion`.

    Raises:
        ConflictError: If other registrations take every number that this call tries.
    """
    names.check("model", model)
    file_records = {}
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        store.put_if_absent(_file_key(model, digest), data, digest)
        file_records[name] = FileRecord(sha256=digest, bytes=len(data))
    for _ in range(_ATTEMPTS):
        number = max(_numbers(store, model), default=0) + 1
        version = ModelVersion(model=model, version=number, files=file_records, **facts)
        if store.put_if_absent(_version_key(model, number), version.model_dump_json(indent=1).encode()):
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
    """Move a ref to a version.

    Returns:
        The version that it pointed at before; None if it didn't exist or held no number.

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
    return int(before.value) if before.value.isdecimal() else None


def resolve(store: Store, name: str) -> ModelVersion:
    """Return the version that `MODEL@REF`, `MODEL@NUMBER` or `MODEL` (its latest) names.

    Raises:
        UsageError: If the name is malformed.
        NotFoundError: If there is none, naming those that exist.
        IntegrityError: If its record is damaged, or an earlier Pawcast wrote it.
    """
    model, _, ref = name.partition("@")
    names.check("model", model)
    ref = names.check("ref", ref or "latest")
    number = ref
    try:
        if not ref.isdecimal():
            number = store.get(_ref_key(model, ref)).decode()
        data = store.get(_version_key(model, int(number)))
    except NotFoundError:
        raise _unknown(store, model, ref) from None
    except ValueError:
        raise IntegrityError(
            f"The ref {model}@{ref} holds no version number",
            received=repr(number),
            fix=_promote_command(store, model, ref),
        ) from None
    return records.parse(
        ModelVersion,
        data,
        f"The record of {model}@{number}",
        fix="train the model again (pawcast train), or serve it with the Pawcast that registered it",
    )


def read_file(store: Store, version: ModelVersion, name: str) -> bytes:
    """Return a file of a version after checking its SHA-256.

    Raises:
        NotFoundError: If the version has no such file.
        IntegrityError: If the file was changed.
    """
    if name not in version.files:
        raise NotFoundError(
            f"{version.name} has no such file", received=repr(name), expected=suggest(name, version.files)
        )
    expected = version.files[name].sha256
    data = store.get(_file_key(version.model, expected))
    if hashlib.sha256(data).hexdigest() != expected:
        raise IntegrityError(
            f"{name} of {version.name} in {store.uri} was changed",
            expected=f"sha256 {expected[:12]}…",
            fix="train again, or promote another version",
        )
    return data


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


def _unknown(store: Store, model: str, ref: str) -> NotFoundError:
    models = {key.split("/")[1] for key in store.list("models/") if "/versions/" in key}
    if model not in models:
        return NotFoundError(
            "Unknown model",
            received=repr(model),
            expected=suggest(model, models),
            fix="train one with `pawcast train`, or check --store",
        )
    existing = [key.rpartition("/")[2] for key in store.list(_ref_key(model, ""))]
    known = [*existing, *(str(number) for number in _numbers(store, model))]
    return NotFoundError(
        f"{model} has no such version",
        received=repr(ref),
        expected=suggest(ref, known),
        fix=None if ref.isdecimal() else _promote_command(store, model, ref),
    )


def _promote_command(store: Store, model: str, ref: str) -> str:
    """Return the command that makes a missing or broken ref point at the newest version."""
    newest = max(_numbers(store, model), default=1) if ref == "latest" else "latest"
    return f"pawcast promote {model} {newest} {ref}"
