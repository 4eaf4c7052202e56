"""Label the unlabelled photos that a model is sure of."""

from typing import TYPE_CHECKING, Annotated

import typer

from pawcast.core import command
from pawcast.core.command import ModelOption, Result, StoreOption
from pawcast.core.console import ProgressBars

if TYPE_CHECKING:
    from pawcast.inference.pseudo_labels import PseudoLabelResult


def main(
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The name of the new dataset.")],
    model: ModelOption,
    min_accuracy: Annotated[
        float,
        typer.Option(
            metavar="N",
            min=0.5,
            max=1.0,
            help="Accept labels above the confidence at which this share of validation labels is correct.",
        ),
    ] = 0.995,
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Label the unlabelled photos that a model is sure of.

    They join the training split of the model's own dataset, which becomes a new dataset.

    Example: pawcast pseudo-label --model catdog@latest --dataset more-pets
    """
    import pawcast
    from pawcast.inference.pseudo_labels import pseudo_label

    store = pawcast.open_store(store_uri)
    engine = pawcast.load_model(model, store=store).engine
    with ProgressBars() as progress:
        done = pseudo_label(store, engine, dataset, min_accuracy, progress=progress)
    result = {
        "dataset": dataset,
        "digest": done.manifest.digest,
        **done.pseudo_labels.model_dump(exclude={"dataset"}),
        "from": done.pseudo_labels.dataset,
        "joined": done.joined,
        "unsure": done.unsure,
        "copies": done.copies,
        "photos": {name: split.photos for name, split in done.manifest.splits.items()},
        "store": store.uri,
    }
    return result, summary(done, min_accuracy)


def summary(done: "PseudoLabelResult", min_accuracy: float) -> str:
    """Return what was done, for people."""
    manifest, labels = done.manifest, done.pseudo_labels
    joined = " and ".join(f"{count:,} {name}" for name, count in done.joined.items())
    return (
        f"{labels.model} is right about {min_accuracy:.1%} of the validation photos of which it is at least "
        f"{labels.confidence:.1%} sure\n"
        f"  added     {joined}; the training split now has {manifest.splits['train'].photos:,} photos\n"
        f"  left out  {done.unsure:,} photos of which it is less sure, {done.copies:,} copies of other photos\n"
        f"{manifest.dataset}@{manifest.digest[:12]}"
    )


if __name__ == "__main__":
    command.run(main)
