"""Turn photos into a dataset: checked, hashed, split, stored as Parquet shards."""

from typing import Annotated

import typer
from rich.table import Table

from pawcast import console
from pawcast.console import Result, StoreOption
from pawcast.dataset.ingest import ingest
from pawcast.dataset.manifest import Manifest
from pawcast.settings import store_uri
from pawcast.store import open_store


def main(
    labelled: Annotated[
        str, typer.Option(help="Zip or folder: cat.7.jpg, dog.7.jpg, or Cat/ and Dog/; or a CSV of file,label.")
    ],
    dataset: Annotated[str, typer.Option(help="The dataset's name.")],
    unlabelled: Annotated[str | None, typer.Option(help="Zip or folder of photos to predict.")] = None,
    store: StoreOption = None,
    holdout: Annotated[int, typer.Option(min=0, help="Labelled photos held out.")] = 1_000,
    val_fraction: Annotated[float, typer.Option(min=0.0, max=0.9, help="Validation's share of the rest.")] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another split.")] = 0,
    classes: Annotated[str, typer.Option(help="Class 0 and class 1, as the names call them.")] = "cat,dog",
    quarantine_limit: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of unusable photos that stops the run.")
    ] = 0.01,
) -> tuple[Result, str]:
    """Turn photos into a dataset: checked, hashed, split, stored as Parquet shards."""
    place = open_store(store_uri(store))
    with console.Stages() as stages:
        manifest = ingest(
            place,
            dataset,
            labelled,
            unlabelled,
            classes=[name.strip() for name in classes.split(",")],
            holdout=holdout,
            val_fraction=val_fraction,
            seed=seed,
            quarantine_limit=quarantine_limit,
            progress=stages,
        )
    show(manifest)
    counts = {name: split.photos for name, split in manifest.splits.items()}
    seconds = sum(stages.seconds.values())
    result = {
        "dataset": dataset,
        "digest": manifest.digest,
        "photos": counts,
        "quarantined": len(manifest.quarantine),
        "seconds": round(seconds, 2),
        "photos_per_second": round(sum(counts.values()) / seconds, 1),
        "store": place.uri,
    }
    return result, f"{dataset}@{manifest.digest[:12]} in {place.uri}"


def show(manifest: Manifest) -> None:
    """Print photos per split and class, and the quarantine's first lines."""
    table = Table("split", *(f"{name}s" for name in manifest.classes), "photos", "shards", "MB")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, split in manifest.splits.items():
        by_class = [f"{split.per_class.get(label, 0):,}" if split.per_class else "–" for label in manifest.classes]
        size = sum(shard.bytes for shard in split.shards) / 1e6
        table.add_row(name, *by_class, f"{split.photos:,}", str(len(split.shards)), f"{size:,.1f}")
    console.console.print(table)
    for item in manifest.quarantine[:5]:
        console.console.print(f"quarantined {item.name}: {item.reason}", markup=False)
    if len(manifest.quarantine) > 5:
        console.console.print(f"… and {len(manifest.quarantine) - 5:,} more; all are in the manifest")


if __name__ == "__main__":
    console.run(main)
