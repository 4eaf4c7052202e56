"""Train a recipe on a dataset with data-parallel workers, and register the best epoch as a model version."""

from typing import Annotated

import typer

from pawcast import console
from pawcast import recipe as recipes
from pawcast.console import Result, StoreOption
from pawcast.settings import store_uri
from pawcast.store import open_store
from pawcast.training.trainer import Trained, Workers, train
from pawcast.training.worker import Progress


def main(
    dataset: Annotated[str, typer.Option(help="NAME, or NAME@DIGEST.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(recipes.RECIPES)}.")] = "article",
    workers: Annotated[int, typer.Option(min=1, help="Data-parallel workers.")] = 2,
    run: Annotated[str | None, typer.Option(help="The run's name. [default: recipe and time]")] = None,
    model: Annotated[str, typer.Option(help="The model to register a version of.")] = "catdog",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as epochs=3 or augment.rotation=10; repeatable."),
    ] = None,
    cpus_per_worker: Annotated[float, typer.Option(min=0.1, help="CPUs that each worker takes from Ray.")] = 1.0,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0, help="GPUs that each worker takes from Ray.")] = 0.0,
    max_failures: Annotated[int, typer.Option(min=0, help="Lost workers to survive.")] = 0,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Train a recipe on a dataset with data-parallel workers, and register the best epoch as a model version."""
    place = open_store(store_uri(store))
    config = recipes.resolve(recipe, settings)
    console.console.print(f"[bold]recipe[/] {config.model_dump_json()}", soft_wrap=True)
    with console.Stages() as stages:
        trained = train(
            place,
            dataset,
            config,
            Workers(workers, cpus_per_worker, gpus_per_worker),
            run=run,
            model=model,
            max_failures=max_failures,
            on_decoded=lambda done, total: stages("decoding", done, total),
            on_progress=lambda progress: show(progress, config.epochs, stages),
            on_note=lambda note: console.console.print(f"[yellow]note:[/] {note}", soft_wrap=True),
        )
    return summarise(trained, place.uri)


def show(progress: Progress, epochs: int, stages: console.Stages) -> None:
    """Print the network once, move the epoch's bar, and end each epoch with a line."""
    if progress.summary:
        console.console.print(progress.summary, markup=False)
        return
    epoch = f"epoch {progress.epoch + 1:>2}/{epochs}"
    if row := progress.finished:
        console.console.print(
            f"{epoch}  loss {row['loss']:.4f}  acc {row['acc']:.4f}  val_loss {row['val_loss']:.4f}  "
            f"val_acc [bold]{row['val_acc']:.4f}[/]  {row['seconds']:,.0f} s  "
            f"{progress.photos_per_second:,.0f} photos/s"
        )
    done, total = progress.epoch * progress.steps + progress.step, epochs * progress.steps
    note = f"{epoch}  loss {progress.loss:.4f}  acc {progress.acc:.4f}  {progress.photos_per_second:,.0f} photos/s"
    stages("training", done, total, note, unit="steps")


def summarise(trained: Trained, store: str) -> tuple[Result, str]:
    """Return the result for machines and for people."""
    version, history = trained.version, trained.history
    result = {
        "model": version.name,
        "run": version.run,
        "metrics": version.metrics,
        "epochs": len(history["acc"]),
        "minutes": round(sum(history["seconds"]) / 60, 2),
        "photos_per_second": round(trained.photos_per_second, 1),
        "store": store,
    }
    metrics = version.metrics
    text = (
        f"{version.name}: val_acc {metrics['val_acc']:.4f} in epoch {trained.best_epoch} of {len(history['acc'])}, "
        f"{result['minutes']:.1f} minutes; history, weights and curves in {store}/runs/{version.run}/"
    )
    return result, text


if __name__ == "__main__":
    console.run(main)
