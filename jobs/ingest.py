"""Turn photos into a dataset, or verify a dataset."""

from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.table import Column, Table

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
    test_size: Annotated[int, typer.Option(metavar="N", min=0, help="Labelled photos in the test split.")] = 1_000,
    val_fraction: Annotated[
        float, typer.Option(metavar="N", min=0, max=0.9, help="Share of the other labelled photos in validation.")
    ] = 0.25,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another seed gives other splits.")] = 0,
    classes: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Class 0 and class 1, as the photos' paths name them.")
    ] = "cat,dog",
    min_side: Annotated[
        int, typer.Option(metavar="N", min=2, help="Leave out photos with a shorter side, in pixels.")
    ] = 16,
    label_column: Annotated[str, typer.Option(metavar="NAME", help="The CSV's column of labels.")] = "",
    group: Annotated[
        str,
        typer.Option(
            metavar="COLUMN|REGEX",
            help="Keep related photos in one split: those with the same value in this column of the CSV, or in the "
            "first group of this regular expression on their name. Splits are then as near to their sizes as whole "
            "groups allow.",
        ),
    ] = "",
    split_folders: Annotated[
        bool, typer.Option("--split-folders", help="Use the source's own train/, validation/ and test/ as splits.")
    ] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK=SHARE",
            help="Fail if a check finds more than this share of the photos; repeatable. [default: unreadable=0.01, "
            "size=0.01, left_out=0.1, extension=1, contradictions=1, split_folders=1, duplicates=0.1, "
            "copies_across_splits=0.1, near_duplicates=0.1, majority=0.95]",
        ),
    ] = None,
    verify: Annotated[
        str | None, typer.Option(metavar="NAME", help="Check every byte of this dataset, instead of making one.")
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
    limits = parse_limits(limit or [])
    with ProgressBars() as progress:
        if verify:
            manifest, report = verify_dataset(store, verify, progress), None
        elif labelled and dataset:
            manifest, report = pawcast.ingest(
                dataset,
                labelled,
                unlabelled,
                classes=[name.strip() for name in classes.split(",")],
                test_size=test_size,
                val_fraction=val_fraction,
                seed=seed,
                min_side=min_side,
                label_column=label_column,
                group=group,
                split_folders=split_folders,
                limits=limits,
                progress=progress,
                store=store,
            )
        else:
            raise UsageError("No photos to ingest", expected="--labelled SOURCE --dataset NAME, or --verify NAME")
    if report:
        show(manifest, report, limits)
    if group and manifest.splits["test"].photos < test_size:
        console.print(f"test has fewer than {test_size:,} photos: no other group of photos fits", soft_wrap=True)
    photos = {name: split.photos for name, split in manifest.splits.items()}
    seconds = sum(progress.seconds.values())
    result = {
        "dataset": manifest.dataset,
        "digest": manifest.digest,
        "photos": photos,
        "quarantined": len(manifest.quarantine),
        **({"left_out": report.left_out} if report else {}),
        "seconds": round(seconds, 2),
        "photos_per_second": round(sum(photos.values()) / seconds, 1),
        "store": store.uri,
    }
    name = f"{manifest.dataset}@{manifest.digest[:12]}"
    return result, f"{name} in {store.uri}" if report else f"{name} is complete and unchanged"


def parse_limits(words: list[str]) -> "CheckLimits":
    """Turn `CHECK=SHARE` words into limits. Raises `UsageError` for an unknown check or share."""
    from pawcast.data.report import CheckLimits

    shares = dict(word.partition("=")[::2] for word in words)
    try:
        return CheckLimits.model_validate(shares)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        expected = f"a share from 0 to 1 for {suggest(name, CheckLimits.model_fields)}"
        raise UsageError("Invalid limit", received=f"--limit {name}={shares[name]}", expected=expected) from None


def show(manifest: "Manifest", report: "DataReport", limits: "CheckLimits") -> None:
    """Print the photos in each split and class, and what the checks found."""
    from pawcast.data.manifest import report_key

    splits = Table("split", *(Column(name, justify="right") for name in (*manifest.classes, "photos", "shards", "MB")))
    for name, split in manifest.splits.items():
        by_class = [f"{split.per_class.get(label, 0):,}" if split.per_class else "–" for label in manifest.classes]
        megabytes = sum(shard.bytes for shard in split.shards) / 1e6
        splits.add_row(name, *by_class, f"{split.photos:,}", str(len(split.shards)), f"{megabytes:,.1f}")
    numbers = (Column(name, justify="right") for name in ("photos", "share", "limit"))
    checks = Table(Column("check", no_wrap=True), "finding", *numbers)
    for check in report.checks:
        limit = getattr(limits, check.name)
        numbers_text = f"{check.photos:,}", f"{check.share:.2%}", f"{limit:.0%}" if limit < 1 else "–"
        checks.add_row(check.name, check.meaning, *numbers_text, style=None if check.photos else "dim")
    console.print(splits, checks)
    for check in report.checks:
        if check.photos and check.name != "majority":
            console.print(f"{check.name}: {check.listing}", markup=False, soft_wrap=True)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in (report.formats | report.modes).items())
    sides = {"width": report.width, "height": report.height}
    sizes = ", ".join(f"{name} {side.least} to {side.most} (median {side.median})" for name, side in sides.items())
    console.print(f"{kinds}; {sizes} pixels", soft_wrap=True)
    console.print(f"full report: {report_key(manifest.dataset, manifest.report_sha256)}", soft_wrap=True)


if __name__ == "__main__":
    command.run(main)
