"""Model versions and refs.

Layout in the store:

    models/NAME/files/SHA256           weights, named by their content
    models/NAME/versions/N.json        the version: immutable, written last, counted from 1
    models/NAME/refs/REF               `latest`, `production`, …: the number of a version
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pawcast.errors import ConflictError, IntegrityError, NotFoundError, UsageError, near
from pawcast.recipe import Recipe
from pawcast.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ATTEMPTS = 20


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Record):
    """A file of a version."""

    sha256: str
    bytes: int


class Preprocessing(_Record):
    """What to do to a photo before the network sees it: `images.load` at this size, then times `scale`."""

    image_size: int
    resize: Literal["area or bilinear, aspect ratio not kept"] = "area or bilinear, aspect ratio not kept"
    scale: float = 1 / 255


class Version(_Record):
    """A trained model: how it was made, how to feed it, how good it is, and its files."""

    schema_version: Literal[1] = 1
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
    architecture: str = Field(description="the network's summary, for people")
    files: dict[str, File]

    @property
    def name(self) -> str:
        """`model@version`."""
        return f"{self.model}@{self.version}"


def check_name(kind: str, name: str) -> str:
    """Return a name that is fit for a key. Raises `UsageError` for any other."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Not a name for a {kind}", received=repr(name),
            expected="up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
        )  # fmt: skip
    return name


def register(store: Store, model: str, files: dict[str, bytes], **facts: Any) -> Version:
    """Store a model's files and publish its next version; move `latest` to it.

    Args:
        store: Where the registry is.
        model: The model's name.
        files: The version's files by name.
        **facts: The other fields of `Version`.

    Raises:
        ConflictError: If others take every number that this call tries.
    """
    check_name("model", model)
    records = {}
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        store.put_new(_file_key(model, digest), data)
        records[name] = File(sha256=digest, bytes=len(data))
    for _ in range(_ATTEMPTS):
        number = max(_numbers(store, model), default=0) + 1
        version = Version(model=model, version=number, files=records, **facts)
        if store.put_new(f"models/{model}/versions/{number}.json", version.model_dump_json(indent=1).encode()):
            point(store, model, "latest", number)
            return version
    raise ConflictError(f"No free version number for {model}", fix="try again when fewer runs finish at once")


def point(store: Store, model: str, ref: str, version: int) -> int | None:
    """Move a ref to a version; return where it pointed before.

    Raises:
        ConflictError: If somebody else moves it at the same time.
    """
    check_name("ref", ref)
    if ref.isdigit():
        raise UsageError("A ref can't be a number", received=repr(ref), expected="a word such as production")
    key = f"models/{model}/refs/{ref}"
    if store.put_new(key, str(version).encode()):
        return None
    current, token = store.get_versioned(key)
    if not store.swap(key, str(version).encode(), token):
        raise ConflictError(f"Somebody else moved {model}@{ref} at the same time", fix="look at it, then try again")
    return int(current)


def resolve(store: Store, name: str) -> Version:
    """Return the version that `MODEL@REF`, `MODEL@NUMBER` or `MODEL` (its latest) names.

    Raises:
        NotFoundError: If there is none, naming what there is.
        IntegrityError: If its record can't be read.
    """
    model, _, ref = name.partition("@")
    ref = ref or "latest"
    number = ref
    try:
        if not ref.isdigit():
            number = store.get(f"models/{check_name('model', model)}/refs/{check_name('ref', ref)}").decode()
        data = store.get(f"models/{model}/versions/{int(number)}.json")
    except NotFoundError:
        raise _unknown(store, model, ref) from None
    try:
        return Version.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise IntegrityError(f"The record of {model}@{number} can't be read", received=first) from None


def read_file(store: Store, version: Version, name: str) -> bytes:
    """Return a file of a version, checked against its sha256.

    Raises:
        IntegrityError: If it was changed.
    """
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
    return [int(key.rpartition("/")[2].removesuffix(".json")) for key in keys]


def _unknown(store: Store, model: str, ref: str) -> NotFoundError:
    models = {key.split("/")[1] for key in store.list("models/") if "/versions/" in key}
    if model not in models:
        return NotFoundError(
            "Unknown model", received=repr(model), expected=near(model, models),
            fix="train one with jobs/train.py, or check --store",
        )  # fmt: skip
    refs = [key.rpartition("/")[2] for key in store.list(f"models/{model}/refs/")]
    known = [*refs, *(str(n) for n in _numbers(store, model))]
    fix = f"jobs/promote.py {model} latest {ref}" if not ref.isdigit() else None
    return NotFoundError(f"{model} has no such version", received=repr(ref), expected=near(ref, known), fix=fix)
