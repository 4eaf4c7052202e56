"""Shards: Parquet files of original photo bytes in Hugging Face's image convention.

Any reader of Parquet opens them; `datasets.load_dataset("parquet", …)` shows pictures and class names.
The convention: https://huggingface.co/docs/datasets/en/image_dataset#parquet
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pawcast.data.manifest import Shard
from pawcast.errors import IntegrityError
from pawcast.store import Store

MAX_ROWS = 2_048
MAX_BYTES = 32 * 2**20
_ROW_GROUP = 128
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class PhotoRow(NamedTuple):
    """One photo in a shard; `label` is -1 where there is none."""

    id: str
    name: str
    label: int
    sha256: str
    width: int
    height: int
    data: bytes


def schema(classes: Sequence[str]) -> pa.Schema:
    """Return the shards' Arrow schema, with the metadata that Hugging Face's readers look for."""
    fields = [
        pa.field("image", _IMAGE),
        pa.field("label", pa.int64()),
        pa.field("id", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
    features: dict[str, object] = {f.name: {"dtype": str(f.type), "_type": "Value"} for f in fields[2:]}
    features |= {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)})


def write(store: Store, dataset: str, split: str, rows: Sequence[PhotoRow], classes: Sequence[str]) -> Shard:
    """Write one shard under a name derived from its content. Equal rows give an equal shard."""
    # Column by column, so that Arrow takes the bytes over as they are.
    image = pa.StructArray.from_arrays(
        [pa.array([row.data for row in rows], pa.binary()), pa.array([row.name for row in rows], pa.string())],
        fields=list(_IMAGE),
    )
    names = ("label", "id", "sha256", "width", "height")
    columns = [image, *(pa.array([getattr(row, name) for row in rows]) for name in names)]
    table = pa.Table.from_arrays(columns, names=["image", *names]).cast(schema(classes))
    buffer = pa.BufferOutputStream()
    # Photos are compressed already; a codec would only cost time.
    pq.write_table(table, buffer, row_group_size=_ROW_GROUP, compression="none", use_dictionary=False)
    data = buffer.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    key = f"datasets/{dataset}/shards/{split}-{digest}.parquet"
    store.put_if_absent(key, data, digest)
    return Shard(key=key, sha256=digest, bytes=len(data), rows=len(rows))


def read(store: Store, shard: Shard) -> pa.Table:
    """Read one shard, its bytes checked against the manifest.

    Raises:
        IntegrityError: If they differ. Nothing of a changed shard is ever used.
    """
    data = store.get(shard.key)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise IntegrityError(
            f"The shard {shard.key} in {store.uri} was changed",
            received=f"{len(data):,} bytes with another sha256",
            expected=f"{shard.bytes:,} bytes with sha256 {shard.sha256[:12]}…",
            fix="delete it and run jobs/ingest.py again",
        )
    return pq.read_table(io.BytesIO(data))


def rows(table: pa.Table) -> Iterator[PhotoRow]:
    """Yield what `write` was given, of a shard that was read."""
    image = table["image"].combine_chunks()
    columns = (
        table["id"], image.field("path"), table["label"], table["sha256"], table["width"], table["height"],
        image.field("bytes"),
    )  # fmt: skip
    for values in zip(*columns, strict=True):
        yield PhotoRow(*(value.as_py() for value in values))
