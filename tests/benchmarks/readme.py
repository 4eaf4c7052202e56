"""Renew README's results table from results/*.json, or with --check say whether it is up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- results: made by `make results` -->", "<!-- end of results -->"


def row(record: dict[str, Any]) -> str:
    """One line of the table."""
    holdout = record["holdout"]
    low, high = holdout["interval"]
    bulk = f"{record['bulk']['photos_per_second']:,.0f}" if record.get("bulk") else "–"
    return (
        f"| `{record['recipe']}` | {record['metrics']['val_acc']:.4f} | **{holdout['accuracy']:.3f}** "
        f"({low:.3f} to {high:.3f}) | {record['minutes']:,.0f} | {bulk} | {record['weights_bytes'] / 1e6:.1f} MB | "
        f"{record['hardware']}; {record['trained'][:10]} |"
    )


def table() -> str:
    """The whole table, between its markers."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = [
        BEGIN,
        "| recipe | validation | held out (95% interval) | minutes | photos/s over HTTP | weights | hardware, date |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(row(record) for record in records),
        END,
    ]
    return "\n".join(lines)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    renewed = before + table() + after
    if "--check" in sys.argv:
        sys.exit(None if renewed == text else "README's results table is out of date. Fix: make results")
    readme.write_text(renewed)


if __name__ == "__main__":
    main()
