"""Let a model label the unlabelled photos that it is sure of, as a dataset for another model to learn from."""

from typing import Annotated

import typer

from pawcast.core import console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.inference.engine import Engine
from pawcast.inference.pseudo_labels import PseudoLabelResult
from pawcast.inference.pseudo_labels import pseudo_label as label_photos
from pawcast.store import open_store


def main(
    dataset: Annotated[str, typer.Option(help="The new dataset's name.")],
    model: Annotated[str, typer.Option(help="MODEL@REF or MODEL@NUMBER; its own dataset is the one to grow.")],
    right: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Sure enough: right about this share of the validation photos.")
    ] = 0.995,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Let a model label the unlabelled photos that it is sure of, as a dataset for another model to learn from."""
    place = open_store(store_uri(store))
    engine = Engine.load(place, model)
    with console.ProgressBars() as stages:
        done = label_photos(place, engine, dataset, right, progress=stages)
    result = {
        "dataset": dataset,
        "digest": done.manifest.digest,
        **done.pseudo_labels.model_dump(exclude={"dataset"}),
        "from": done.pseudo_labels.dataset,
        "joined": done.joined,
        "unsure": done.unsure,
        "copies": done.copies,
        "photos": {name: split.photos for name, split in done.manifest.splits.items()},
        "store": place.uri,
    }
    return result, text_of(done, right)


def text_of(done: PseudoLabelResult, right: float) -> str:
    """Return what was done, for people."""
    manifest, made = done.manifest, done.pseudo_labels
    joined = " and ".join(f"{count:,} {name}s" for name, count in done.joined.items())
    return (
        f"{made.model} is right about {right:.1%} of the validation photos of which it is {made.confidence:.1%} sure\n"
        f"  joined    {joined}; {manifest.splits['train'].photos:,} photos to train on\n"
        f"  left out  {done.unsure:,} of which it is less sure, {done.copies:,} copies of other photos\n"
        f"{manifest.dataset}@{manifest.digest[:12]}"
    )


if __name__ == "__main__":
    console.run(main)
