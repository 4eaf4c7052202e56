"""Turn photos into a dataset: checked, hashed, split, stored as Parquet shards. Or verify one: --verify NAME."""

from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from pawcast.core import console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.data.ingest import MIN_SIDE, ingest
from pawcast.data.manifest import Manifest, report_key
from pawcast.data.report import CheckLimits, DataReport
from pawcast.data.verify import verify as verify_dataset
from pawcast.errors import UsageError, suggest
from pawcast.store import open_store


def main(
    labelled: Annotated[
        str | None, typer.Option(help="Zip or folder: cat.7.jpg, dog.7.jpg, or Cat/ and Dog/; or a CSV of file,label.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset's name.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="Zip or folder of photos to predict.")] = None,
    store: StoreOption = None,
    test_size: Annotated[int, typer.Option(min=0, help="Labelled photos held out.")] = 1_000,
    val_fraction: Annotated[float, typer.Option(min=0.0, max=0.9, help="Validation's share of the rest.")] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another split.")] = 0,
    classes: Annotated[str, typer.Option(help="Class 0 and class 1, as the names call them.")] = "cat,dog",
    min_side: Annotated[int, typer.Option(min=2, help="Leave out photos with a shorter side, in pixels.")] = MIN_SIDE,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help=f"CHECK=SHARE: the share of photos above which a finding stops the run; repeatable. "
            f"[default: {', '.join(f'{name}={share:g}' for name, share in CheckLimits())}]"
        ),
    ] = None,
    verify: Annotated[str | None, typer.Option(help="Read a published dataset again: NAME, or NAME@DIGEST.")] = None,
) -> tuple[Result, str]:
    """Turn photos into a dataset: checked, hashed, split, stored as Parquet shards. Or verify one: --verify NAME."""
    place = open_store(store_uri(store))
    if verify:
        with console.ProgressBars() as stages:
            manifest = verify_dataset(place, verify, stages)
        return summarise(manifest, place.uri, stages.seconds), f"{manifest.dataset}@{manifest.digest[:12]} is whole"
    if not labelled or not dataset:
        raise UsageError("What to ingest is missing", expected="--labelled SOURCE --dataset NAME, or --verify NAME")
    limits = parse_limits(limit or [])
    with console.ProgressBars() as stages:
        manifest, findings = ingest(
            place,
            dataset,
            labelled,
            unlabelled,
            classes=[name.strip() for name in classes.split(",")],
            test_size=test_size,
            val_fraction=val_fraction,
            seed=seed,
            min_side=min_side,
            limits=limits,
            progress=stages,
        )
    show(manifest, findings, limits)
    return summarise(manifest, place.uri, stages.seconds), f"{dataset}@{manifest.digest[:12]} in {place.uri}"


def parse_limits(words: list[str]) -> CheckLimits:
    """Turn `CHECK=SHARE` words into limits.

    Raises:
        UsageError: For another check, or a share that isn't one.
    """
    given = dict(word.partition("=")[::2] for word in words)
    for name in given:
        if name not in CheckLimits.model_fields:
            raise UsageError(
                "Unknown check", received=f"--limit {name}", expected=suggest(name, CheckLimits.model_fields)
            )
    try:
        return CheckLimits.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise UsageError(
            "Not a share", received=f"--limit {name}={given[name]}", expected="a number from 0 to 1"
        ) from None


def show(manifest: Manifest, findings: DataReport, limits: CheckLimits) -> None:
    """Print photos per split and class, and the report in short."""
    table = Table("split", *(f"{name}s" for name in manifest.classes), "photos", "shards", "MB")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, split in manifest.splits.items():
        by_class = [f"{split.per_class.get(label, 0):,}" if split.per_class else "–" for label in manifest.classes]
        size = sum(shard.bytes for shard in split.shards) / 1e6
        table.add_row(name, *by_class, f"{split.photos:,}", str(len(split.shards)), f"{size:,.1f}")
    console.console.print(table)
    table = Table("check", "finding", "photos", "share", "limit")
    table.columns[0].no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for check in findings.checks:
        limit = getattr(limits, check.name)
        row = (
            check.name,
            check.meaning,
            f"{check.photos:,}",
            f"{check.share:.2%}",
            f"{limit:.0%}" if limit < 1 else "–",
        )
        table.add_row(*row, style=None if check.photos else "dim")
    console.console.print(table)
    for check in findings.checks:
        if check.photos and check.name != "majority":
            more = ", …" if check.photos > len(check.examples) else ""
            console.console.print(f"{check.name}: {', '.join(check.examples)}{more}", markup=False)
    width, height = findings.width, findings.height
    console.console.print(
        f"{', '.join(f'{count:,} {kind}' for kind, count in (findings.formats | findings.modes).items())}; "
        f"width {width.least} to {width.most} (median {width.median}), "
        f"height {height.least} to {height.most} (median {height.median}) pixels"
    )
    console.console.print(f"in full: {report_key(manifest.dataset, manifest.report_sha256)}", soft_wrap=True)


def summarise(manifest: Manifest, store: str, stages: dict[str, float]) -> Result:
    """Return the result for machines."""
    counts = {name: split.photos for name, split in manifest.splits.items()}
    seconds = sum(stages.values())
    return {
        "dataset": manifest.dataset,
        "digest": manifest.digest,
        "photos": counts,
        "quarantined": len(manifest.quarantine),
        "seconds": round(seconds, 2),
        "photos_per_second": round(sum(counts.values()) / seconds, 1),
        "store": store,
    }


if __name__ == "__main__":
    console.run(main)
