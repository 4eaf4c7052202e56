"""Model versions and refs.

Layout in the store:

    models/NAME/files/SHA256           weights, named by their content
    models/NAME/versions/N.json        the version: immutable, written last, counted from 1
    models/NAME/refs/REF               `latest`, `production`, …: the number of a version
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import Field, ValidationError

from pawcast.core import names
from pawcast.core.records import Record
from pawcast.errors import ConflictError, IntegrityError, NotFoundError, UsageError, suggest
from pawcast.recipes.schema import Recipe
from pawcast.runtime.devices import Precision
from pawcast.store import Store
from pawcast.vision.preprocess import Preprocessing

WEIGHTS = "model.weights.h5"
"""A version's weights among its files, in Keras's format."""

MAX_DIFFERENCE = 0.01
"""How far a served probability may be from Keras's in float32."""

_ATTEMPTS = 20
_MIN_SAME_LABELS = 0.999
# More would make bfloat16 no faster than float32 alone.
_MAX_AGAIN = 0.25


class FileRecord(Record):
    """A file of a version."""

    sha256: str
    bytes: int


class Parity(Record):
    """How well what is served agrees with the same network as Keras computes it, in float32 and photo by photo."""

    photos: int = Field(description="how many were compared")
    same_label_share: float = Field(description="share of them with the same label, in [0, 1]")
    max_difference: float = Field(description="of the two probabilities of class 1, over all photos")
    fallback_margin: float = Field(
        default=0.0, description="of bfloat16: scores nearer than this to one half are computed again in float32"
    )
    fallback_share: float = Field(default=0.0, description="share of the photos that were, in [0, 1]")

    @property
    def acceptable(self) -> bool:
        """Whether it is good enough to be served, and still worth it."""
        close = self.same_label_share >= _MIN_SAME_LABELS and self.max_difference <= MAX_DIFFERENCE
        return close and self.fallback_share <= _MAX_AGAIN

    def __str__(self) -> str:
        again = f", {self.fallback_share:.1%} of them computed again" if self.fallback_share else ""
        return f"{self.same_label_share:.2%} of {self.photos:,} labels equal, within {self.max_difference:.2g}{again}"


class ModelVersion(Record):
    """A trained model: how it was made, how to feed it, how good it is, and its files."""

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
        default=None, description="measured at registration, by the precision that the network is served in"
    )
    architecture: str = Field(description="the network's summary, for people")
    files: dict[str, FileRecord]

    @property
    def name(self) -> str:
        """`model@version`."""
        return f"{self.model}@{self.version}"


def register(store: Store, model: str, files: dict[str, bytes], **facts: Any) -> ModelVersion:
    """Store a model's files and publish its next version; move `latest` to it.

    Args:
        store: Where the registry is.
        model: The model's name.
        files: The version's files by name.
        **facts: The other fields of `Version`.

    Raises:
        ConflictError: If others take every number that this call tries.
    """
    names.check("model", model)
    records = {}
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        store.put_if_absent(_file_key(model, digest), data, digest)
        records[name] = FileRecord(sha256=digest, bytes=len(data))
    for _ in range(_ATTEMPTS):
        number = max(_numbers(store, model), default=0) + 1
        version = ModelVersion(model=model, version=number, files=records, **facts)
        if store.put_if_absent(f"models/{model}/versions/{number}.json", version.model_dump_json(indent=1).encode()):
            _advance(store, f"models/{model}/refs/latest", number)
            return version
    raise ConflictError(f"No free version number for {model}", fix="try again when fewer runs finish at once")


def move_ref(store: Store, model: str, ref: str, version: int) -> int | None:
    """Move a ref to a version; return where it pointed before.

    Raises:
        NotFoundError: If there is no such version.
        ConflictError: If somebody else moves the ref at the same time.
    """
    names.check("ref", ref)
    if ref.isdecimal():
        raise UsageError("A ref can't be a number", received=repr(ref), expected="a word such as production")
    resolve(store, f"{model}@{version}")
    key = f"models/{model}/refs/{ref}"
    if store.put_if_absent(key, str(version).encode()):
        return None
    current, token = store.get_with_etag(key)
    if not store.put_if_match(key, str(version).encode(), token):
        raise ConflictError(f"Somebody else moved {model}@{ref} at the same time", fix="look at it, then try again")
    return int(current)


def _advance(store: Store, key: str, version: int) -> None:
    """Move a ref up to a version; leave it where it is if another run has moved it further."""
    if store.put_if_absent(key, str(version).encode()):
        return
    while True:
        current, token = store.get_with_etag(key)
        if int(current) >= version or store.put_if_match(key, str(version).encode(), token):
            return


def resolve(store: Store, name: str) -> ModelVersion:
    """Return the version that `MODEL@REF`, `MODEL@NUMBER` or `MODEL` (its latest) names.

    Raises:
        NotFoundError: If there is none, naming what there is.
        IntegrityError: If its record can't be read.
    """
    model, _, ref = name.partition("@")
    names.check("model", model)
    ref = names.check("ref", ref or "latest")
    number = ref
    try:
        if not ref.isdecimal():
            number = store.get(f"models/{model}/refs/{ref}").decode()
        data = store.get(f"models/{model}/versions/{int(number)}.json")
        return ModelVersion.model_validate_json(data)
    except NotFoundError:
        raise _unknown(store, model, ref) from None
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise IntegrityError(
            f"The record of {model}@{number} can't be read",
            received=first,
            fix="serve it with the Pawcast that made it, or train again",
        ) from None
    except ValueError:
        raise IntegrityError(
            f"The ref {model}@{ref} holds no version's number", received=repr(number),
            fix=f"jobs/promote.py {model} latest {ref}",
        ) from None  # fmt: skip


def read_file(store: Store, version: ModelVersion, name: str) -> bytes:
    """Return a file of a version, checked against its sha256.

    Raises:
        NotFoundError: If the version has no such file.
        IntegrityError: If it was changed.
    """
    if name not in version.files:
        raise NotFoundError(
            f"{version.name} has no such file", received=repr(name), expected=suggest(name, version.files)
        )
    record = version.files[name]
    data = store.get(_file_key(version.model, record.sha256))
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise IntegrityError(
            f"{name} of {version.name} in {store.uri} was changed",
            expected=f"sha256 {record.sha256[:12]}…",
            fix="train again, or promote another version",
        )
    return data


def _file_key(model: str, digest: str) -> str:
    return f"models/{model}/files/{digest}"


def _numbers(store: Store, model: str) -> list[int]:
    keys = store.list(f"models/{model}/versions/")
    stems = [key.rpartition("/")[2].removesuffix(".json") for key in keys]
    return [int(stem) for stem in stems if stem.isdecimal()]


def _unknown(store: Store, model: str, ref: str) -> NotFoundError:
    models = {key.split("/")[1] for key in store.list("models/") if "/versions/" in key}
    if model not in models:
        return NotFoundError(
            "Unknown model", received=repr(model), expected=suggest(model, models),
            fix="train one with jobs/train.py, or check --store",
        )  # fmt: skip
    refs = [key.rpartition("/")[2] for key in store.list(f"models/{model}/refs/")]
    known = [*refs, *(str(n) for n in _numbers(store, model))]
    fix = f"jobs/promote.py {model} latest {ref}" if not ref.isdecimal() else None
    return NotFoundError(f"{model} has no such version", received=repr(ref), expected=suggest(ref, known), fix=fix)
