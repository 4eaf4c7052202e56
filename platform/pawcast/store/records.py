"""Reading records from a store: pydantic models that an earlier Pawcast may have written."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from pawcast.core.records import Record
from pawcast.errors import IntegrityError

_R = TypeVar("_R", bound=Record)


def parse(kind: type[_R], data: bytes, name: str, fix: str) -> _R:
    """Return a record from its JSON.

    The first field of the class is `schema_version`, so a record of another schema is reported by
    its version and not by a field that differs. `name` and `fix` are parts of the error.

    Raises:
        IntegrityError: If the record is damaged, or another version of Pawcast wrote it.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        other_schema = field == "schema_version"
        raise IntegrityError(
            f"{name} can't be read by this version of Pawcast",
            received=f"schema_version {first['input']}" if other_schema else f"{field or 'JSON'}: {first['msg']}",
            expected=f"schema_version {kind.model_fields[field].default}" if other_schema else None,
            fix=fix,
        ) from None
