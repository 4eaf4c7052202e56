"""The format of shards: Parquet files of unchanged photo files in Hugging Face's image convention.

Any Parquet reader opens a shard. `datasets.load_dataset("parquet", …)` shows pictures and class
names. To iterate over a split, use `pawcast.data.reader.SplitReader`.
The convention: https://huggingface.co/docs/datasets/en/image_dataset#parquet
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pawcast.data.manifest import Shard
from pawcast.errors import IntegrityError
from pawcast.store import Store

MAX_ROWS = 2_048
MAX_BYTES = 32 * 2**20
_ROW_GROUP = 128
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_COLUMNS = {"id": pa.string(), "sha256": pa.string(), "width": pa.int32(), "height": pa.int32()}

T = TypeVar("T")


class PhotoRow(NamedTuple):
    """One photo in a shard.

    Attributes:
        id: Unique within its source, such as `cat.7`.
        name: The file's name, such as `cat.7.jpg`.
        label: Index into the dataset's classes, or -1 without a label.
        sha256: Hash of `data`, hexadecimal.
        width, height: In pixels.
        data: The photo file, unchanged.
    """

    id: str
    name: str
    label: int
    sha256: str
    width: int
    height: int
    data: bytes


def schema(classes: Sequence[str]) -> pa.Schema:
    """Return the Arrow schema of a shard, with the metadata that Hugging Face's readers expect."""
    features: dict[str, object] = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in _COLUMNS.items()}
    features |= {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)}
    return pa.schema({"image": _IMAGE, "label": pa.int64()} | _COLUMNS, metadata)


def cut(photos: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Group the photos of one split into shards, in order.

    Args:
        photos: The photos, in whatever form.
        size: Returns the bytes of one photo.

    Yields:
        1 to `MAX_ROWS` photos of at most `MAX_BYTES` together. A larger photo is alone.
    """
    group: list[T] = []
    total = 0
    for photo in photos:
        if group and (len(group) == MAX_ROWS or total + size(photo) > MAX_BYTES):
            yield group
            group, total = [], 0
        group.append(photo)
        total += size(photo)
    if group:
        yield group


def write(store: Store, dataset: str, split: str, rows: Sequence[PhotoRow], classes: Sequence[str]) -> Shard:
    """Write one shard under a key derived from its content. Equal rows give an equal shard."""
    table = pa.Table.from_pylist(
        [row._asdict() | {"image": {"bytes": row.data, "path": row.name}} for row in rows], schema(classes)
    )
    buffer = pa.BufferOutputStream()
    # Photos are compressed already: a codec would only cost time.
    pq.write_table(table, buffer, row_group_size=_ROW_GROUP, compression="none", use_dictionary=False)
    data = buffer.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    key = f"datasets/{dataset}/shards/{split}-{digest}.parquet"
    store.put_if_absent(key, data, digest)
    return Shard(key=key, sha256=digest, bytes=len(data), rows=len(rows))


def read(store: Store, shard: Shard) -> pa.Table:
    """Read one shard and verify its sha256 before anything of it is used.

    Raises:
        IntegrityError: If the bytes aren't those that the manifest recorded.
        NotFoundError: If the shard is missing.
    """
    data = store.get(shard.key)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise IntegrityError(
            f"The shard {shard.key} in {store.uri} was changed", fix="delete it and run pawcast ingest again"
        )
    return pq.read_table(io.BytesIO(data))


def rows(table: pa.Table) -> Iterator[PhotoRow]:
    """Yield the rows of a shard's table, or of a slice of it."""
    for batch in table.to_batches(_ROW_GROUP):
        for row in batch.to_pylist():
            image = row.pop("image")
            yield PhotoRow(**row, name=image["path"], data=image["bytes"])
