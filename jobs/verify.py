"""Check that datasets, runs and models are undamaged."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pawcast.core import command
from pawcast.core.command import CommandError, Result, StoreOption
from pawcast.core.console import ProgressBars, console
from pawcast.errors import IntegrityError

if TYPE_CHECKING:
    from pawcast.store import Store
    from pawcast.store.records import Read


def main(
    dataset: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Verify this dataset; repeatable.")] = None,
    run: Annotated[list[str] | None, typer.Option(metavar="RUN", help="Verify this run; repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Verify this model; repeatable.")] = None,
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Check that datasets, runs and models are undamaged.

    Without an option all of the store is verified. Each damaged or missing object is named. Ingest,
    train or register the same again to put it right.

    Example: pawcast verify --dataset pets --model catdog
    """
    import pawcast
    from pawcast.store import records

    store = pawcast.open_store(store_uri)
    kinds = {"datasets": dataset or [], "runs": run or [], "models": model or []}
    if not any(kinds.values()):
        kinds = {kind: sorted({key.split("/")[1] for key in store.list(f"{kind}/")}) for kind in kinds}
    damages: dict[str, str] = {}
    with ProgressBars() as progress:
        reads = dict(objects(store, kinds))
        for number, found in enumerate(records.check(reads.items()), start=1):
            progress("verifying", number, len(reads), unit="objects")
            if found.damage:
                damages[found.key] = found.damage
    result = {"store": store.uri, "objects": len(reads), "damaged": sorted(damages), **kinds}
    for damage in damages.values():
        console.print(damage, style="red", markup=False, soft_wrap=True)
    if damages:
        what = f"{len(damages):,} of {len(reads):,} objects are missing or changed: {', '.join(sorted(damages)[:3])}"
        raise CommandError(what, IntegrityError.exit_code, result)
    return result, f"{len(reads):,} objects in {store.uri} are complete and unchanged"


def objects(store: "Store", kinds: dict[str, list[str]]) -> "Iterator[Read]":
    """Yield the objects of datasets, runs and models, and how to read each."""
    from pawcast import registry
    from pawcast.data import manifest as manifests
    from pawcast.training import runs

    for kind, read in (("datasets", manifests.objects), ("runs", runs.objects), ("models", registry.objects)):
        for name in kinds[kind]:
            yield from read(store, name)


if __name__ == "__main__":
    command.run(main)
