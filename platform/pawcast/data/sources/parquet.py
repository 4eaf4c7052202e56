"""Photos in Parquet: Pawcast's own shards, and what Hugging Face's `datasets` writes."""

from __future__ import annotations

import bisect
import contextlib
import json
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pawcast.data.sources.container import DOWNLOAD, Container, Entry, too_large
from pawcast.data.sources.labels import normalize_path, refusal
from pawcast.data.sources.table import LABEL_COLUMNS, find_column
from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

_ROWS = 64  # In memory at a time.


class ParquetFile(Container):
    """A Parquet file with a column of pictures: a struct of `bytes` and `path`, or plain bytes.

    A member is the number of its row. Rows are read fastest in their order.

    Args:
        path: The file.

    Raises:
        DataError: If it isn't Parquet, or has no column of pictures.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
            self._schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise refusal(str(path), "can't be opened as Parquet", error, fix=DOWNLOAD) from None
        images = [field for field in self._schema if _is_picture(field.type)]
        if not images:
            expected = "a column of bytes, or of structs with bytes and path as Hugging Face writes them"
            fix = "write the photos' bytes into one"
            raise refusal(str(path), "has no column of pictures", ", ".join(self._schema.names), expected, fix=fix)
        self._image = images[0]
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._start = self._starts[-1]
        self._values: Any = []

    def entries(self) -> Iterator[Entry]:
        return self.rows("", "")

    def rows(self, label_column: str, group: str) -> Iterator[Entry]:
        names = self._schema.names
        columns = [find_column(names, LABEL_COLUMNS, label_column), find_column(names, (), group)]
        if label_column and columns[0] < 0:
            raise refusal(str(self._path), f"has no column {label_column}", ", ".join(names), fix="name one of these")
        labels, groups = (self._texts(names[column]) if column >= 0 else [] for column in columns)
        paths = self._texts(f"{self._image.name}.path") if pa.types.is_struct(self._image.type) else []
        if not all(paths) or len(set(paths)) < len(paths):
            paths = []
        for row in range(self._starts[-1]):
            name = normalize_path(paths[row]) if paths else str(row)
            yield Entry(str(row), name, label=labels[row] if labels else "", group=groups[row] if groups else "")

    def read(self, member: str, limit: int = MAX_BYTES) -> bytes:
        try:
            data = self._value(int(member))
        except (pa.ArrowException, OSError, StopIteration) as error:
            raise ImageError(f"can't be read from the Parquet file ({type(error).__name__})") from None
        if data is None:
            raise ImageError("is only named in the Parquet file, without its bytes")
        if len(data) > limit:
            raise too_large(limit)
        return data

    def metadata(self, member: str) -> tuple[object, ...]:
        """Return the file's size and number of rows."""
        return self._path.stat().st_size, self._starts[-1]

    def _value(self, row: int) -> bytes | None:
        """Return the bytes in a row. Reads on from the row that was read last."""
        group = bisect.bisect_right(self._starts, row) - 1
        if row < self._start or self._starts[group] > self._start:
            column = f"{self._image.name}.bytes" if pa.types.is_struct(self._image.type) else self._image.name
            self._batches = self._file.iter_batches(_ROWS, row_groups=[group], columns=[column])
            self._start, self._values = self._starts[group], []
        while row >= self._start + len(self._values):
            self._start += len(self._values)
            self._values = next(self._batches).column(0)
        value = self._values[row - self._start].as_py()
        return value["bytes"] if isinstance(value, dict) else value

    def _texts(self, column: str) -> list[str]:
        """Return a column as text: class names in place of their numbers, empty for no value."""
        try:
            values = self._file.read(columns=[column]).flatten().column(0).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise refusal(str(self._path), "can't be read as Parquet", error, fix=DOWNLOAD) from None
        names = self._class_names(column)
        return ["" if value is None or value == -1 else names.get(value, str(value)) for value in values]

    def _class_names(self, column: str) -> dict[object, str]:
        """Return the names of classes, as Hugging Face keeps them beside a column's numbers."""
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
            features = json.loads((self._schema.metadata or {})[b"huggingface"])["info"]["features"]
            return dict(enumerate(map(str, features[column]["names"])))
        return {}


def _is_picture(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_picture(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
