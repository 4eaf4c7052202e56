"""Turn photos into a dataset, or verify a dataset."""

from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from pawcast.core import command
from pawcast.core.command import Result, StoreOption
from pawcast.core.console import ProgressBars, console
from pawcast.errors import UsageError, suggest

if TYPE_CHECKING:
    from pawcast.data.manifest import Manifest
    from pawcast.data.report import CheckLimits, DataReport


def main(
    labelled: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Labelled photos: a zip or a folder of cat.7.jpg, dog.7.jpg or of Cat/, Dog/; or a CSV of file,label.",
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="The name of the dataset.")] = None,
    unlabelled: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="A zip or a folder of photos to predict later.")
    ] = None,
    test_size: Annotated[
        int, typer.Option(metavar="N", min=0, help="How many labelled photos go to the test split.")
    ] = 1_000,
    val_fraction: Annotated[
        float,
        typer.Option(metavar="N", min=0.0, max=0.9, help="The validation split's share of the other labelled photos."),
    ] = 0.25,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another seed gives other splits.")] = 0,
    classes: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Class 0 and class 1, as the photos' paths name them.")
    ] = "cat,dog",
    min_side: Annotated[
        int, typer.Option(metavar="N", min=2, help="Leave out photos with a shorter side, in pixels.")
    ] = 16,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK=SHARE",
            help="Fail if a check finds more than this share of the photos; repeatable. [default: unreadable=0.01, "
            "size=0.01, extension=1, duplicates=0.1, near_duplicates=0.1, majority=0.95]",
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Read this dataset again and check every byte, instead of making one."),
    ] = None,
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Turn photos into a dataset, or verify a dataset.

    Photos are checked, hashed, split into train, val and test, and stored as Parquet shards. Photos
    that can't be read are left out and listed with the reason.

    Example: pawcast ingest --labelled train.zip --dataset pets
    """
    import pawcast
    from pawcast.data.verify import verify as verify_dataset

    store = pawcast.open_store(store_uri)
    if verify:
        with ProgressBars() as progress:
            manifest = verify_dataset(store, verify, progress)
        text = f"{manifest.dataset}@{manifest.digest[:12]} is complete and unchanged"
        return summary(manifest, store.uri, progress.seconds), text
    if not labelled or not dataset:
        raise UsageError("No photos to ingest", expected="--labelled SOURCE --dataset NAME, or --verify NAME")
    limits = parse_limits(limit or [])
    with ProgressBars() as progress:
        manifest, report = pawcast.ingest(
            dataset,
            labelled,
            unlabelled,
            classes=[name.strip() for name in classes.split(",")],
            test_size=test_size,
            val_fraction=val_fraction,
            seed=seed,
            min_side=min_side,
            limits=limits,
            progress=progress,
            store=store,
        )
    show(manifest, report, limits)
    return summary(manifest, store.uri, progress.seconds), f"{dataset}@{manifest.digest[:12]} in {store.uri}"


def parse_limits(words: list[str]) -> "CheckLimits":
    """Turn `CHECK=SHARE` words into limits.

    Raises:
        UsageError: For an unknown check, or a share outside [0, 1].
    """
    from pawcast.data.report import CheckLimits

    shares = dict(word.partition("=")[::2] for word in words)
    for name in shares:
        if name not in CheckLimits.model_fields:
            raise UsageError(
                "Unknown check", received=f"--limit {name}", expected=suggest(name, CheckLimits.model_fields)
            )
    try:
        return CheckLimits.model_validate(shares)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise UsageError(
            "Invalid share", received=f"--limit {name}={shares[name]}", expected="a number from 0 to 1"
        ) from None


def show(manifest: "Manifest", report: "DataReport", limits: "CheckLimits") -> None:
    """Print the photos in each split and class, and what the checks found."""
    splits = Table("split", *manifest.classes, "photos", "shards", "MB")
    for column in splits.columns[1:]:
        column.justify = "right"
    for name, split in manifest.splits.items():
        by_class = [f"{split.per_class.get(label, 0):,}" if split.per_class else "–" for label in manifest.classes]
        megabytes = sum(shard.bytes for shard in split.shards) / 1e6
        splits.add_row(name, *by_class, f"{split.photos:,}", str(len(split.shards)), f"{megabytes:,.1f}")
    console.print(splits)
    show_checks(report, limits)
    width, height = report.width, report.height
    console.print(
        f"{', '.join(f'{count:,} {kind}' for kind, count in (report.formats | report.modes).items())}; "
        f"width {width.least} to {width.most} (median {width.median}), "
        f"height {height.least} to {height.most} (median {height.median}) pixels"
    )
    from pawcast.data.manifest import report_key

    console.print(f"full report: {report_key(manifest.dataset, manifest.report_sha256)}", soft_wrap=True)


def show_checks(report: "DataReport", limits: "CheckLimits") -> None:
    """Print the result of each check, and examples of what it found."""
    checks = Table("check", "finding", "photos", "share", "limit")
    checks.columns[0].no_wrap = True
    for column in checks.columns[2:]:
        column.justify = "right"
    for check in report.checks:
        limit = getattr(limits, check.name)
        share, limit_text = f"{check.share:.2%}", f"{limit:.0%}" if limit < 1 else "–"
        style = None if check.photos else "dim"
        checks.add_row(check.name, check.meaning, f"{check.photos:,}", share, limit_text, style=style)
    console.print(checks)
    for check in report.checks:
        if check.photos and check.name != "majority":
            more = ", …" if check.photos > len(check.examples) else ""
            console.print(f"{check.name}: {', '.join(check.examples)}{more}", markup=False)


def summary(manifest: "Manifest", store: str, seconds_by_stage: dict[str, float]) -> Result:
    """Return the result for machines."""
    photos = {name: split.photos for name, split in manifest.splits.items()}
    seconds = sum(seconds_by_stage.values())
    return {
        "dataset": manifest.dataset,
        "digest": manifest.digest,
        "photos": photos,
        "quarantined": len(manifest.quarantine),
        "seconds": round(seconds, 2),
        "photos_per_second": round(sum(photos.values()) / seconds, 1),
        "store": store,
    }


if __name__ == "__main__":
    command.run(main)
