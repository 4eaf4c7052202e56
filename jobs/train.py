"""Train a recipe on a dataset with data-parallel workers, and register the best epoch as a model version."""

from typing import Annotated

import typer

from pawcast import recipes
from pawcast.core import console, plugins
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.errors import UsageError
from pawcast.store import open_store
from pawcast.training import runs
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import Workers
from pawcast.training.timing import StepTiming
from pawcast.training.trainer import Callbacks, Trained
from pawcast.training.trainer import resume as resume_run
from pawcast.training.trainer import train as train_run

_PARTS = {
    "forward_backward": "forward and backward pass",
    "augmentation": "augmentation",
    "all_reduce": "all-reduce",
    "data_wait": "waiting for data",
}


def main(
    dataset: Annotated[str | None, typer.Option(help="NAME, or NAME@DIGEST.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(recipes.RECIPES)}, or package.module:function. [default: article]"),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Data-parallel workers. [default: 1]")] = None,
    run: Annotated[str | None, typer.Option(help="The run's name. [default: recipe and time]")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run, which was stopped.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to register a version of, or a network of your own as package.module:function. "
            "[default: catdog]"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as epochs=3 or augment.rotation=10; repeatable."),
    ] = None,
    cpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0.1, help="CPUs of each worker. [default: all of the node, divided among its workers]"),
    ] = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0.0, help="GPUs that each worker takes from Ray.")] = 0.0,
    max_failures: Annotated[int, typer.Option(min=0, help="Lost workers to survive.")] = 3,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Train a recipe on a dataset with data-parallel workers, and register the best epoch as a model version."""
    place = open_store(store_uri(store))
    if resume:
        given = {"--dataset": dataset, "--recipe": recipe, "--run": run, "--model": model, "--set": settings}
        if clash := [name for name, value in given.items() if value]:
            raise UsageError(
                "--resume goes on with what the run began with", received=" and ".join(clash), expected="--resume alone"
            )
        record = runs.load(place, resume)
        config, chosen = record.recipe, record.workers
        if workers:
            chosen = Workers(number=workers, cpus=cpus_per_worker, gpus=gpus_per_worker)
        console.console.print(
            f"[bold]resuming[/] {resume}, begun {record.started}: {config.name} on "
            f"{record.dataset}@{record.dataset_sha256[:12]}",
            soft_wrap=True,
        )
    else:
        if dataset is None:
            raise UsageError("No dataset", expected="--dataset NAME, or --resume RUN")
        own = model if model and plugins.is_reference(model) else None
        config = recipes.resolve(recipe or "article", [*([f"model={own}"] if own else []), *(settings or [])])
        console.console.print(f"[bold]recipe[/] {config.model_dump_json()}", soft_wrap=True)
        chosen = Workers(number=workers or 1, cpus=cpus_per_worker, gpus=gpus_per_worker)
    with console.ProgressBars() as stages:
        callbacks = Callbacks(
            progress=stages,
            update=lambda update: show(update, config.epochs, stages),
            note=lambda note: console.console.print(f"[yellow]note:[/] {note}", soft_wrap=True),
        )
        if resume:
            trained = resume_run(place, resume, chosen, max_failures=max_failures, callbacks=callbacks)
        else:
            trained = train_run(
                place,
                str(dataset),
                config,
                chosen,
                run=run,
                model=model if model and not own else "catdog",
                max_failures=max_failures,
                callbacks=callbacks,
            )
    return summarise(trained, place.uri)


def show(progress: ProgressUpdate, epochs: int, stages: console.ProgressBars) -> None:
    """Print the network once, move the epoch's bar, and end each epoch with a line."""
    if progress.summary:
        console.console.print(progress.summary, markup=False)
        return
    if progress.resumed:
        console.console.print(f"going on after epoch {progress.resumed} of {epochs}, from its checkpoint")
        return
    if progress.timing:
        console.console.print(f"[bold]timing[/] {describe(progress.timing)}", soft_wrap=True)
        return
    epoch = f"epoch {progress.epoch + 1:>2}/{epochs}"
    if row := progress.finished:
        validated = "val_acc" in row
        validation = f"val_loss {row['val_loss']:.4f}  val_acc [bold]{row['val_acc']:.4f}[/]  " if validated else ""
        console.console.print(
            f"{epoch}  loss {row['loss']:.4f}  acc {row['acc']:.4f}  {validation}{row['seconds']:,.0f} s  "
            f"{progress.photos_per_second:,.0f} photos/s"
        )
    done, total = progress.epoch * progress.steps + progress.step, epochs * progress.steps
    note = f"{epoch}  loss {progress.loss:.4f}  acc {progress.acc:.4f}  {progress.photos_per_second:,.0f} photos/s"
    stages("training", done, total, note, unit="steps")


def describe(timing: StepTiming) -> str:
    """Return the parts of an average step as a line, the longest part first."""
    parts = sorted(timing.parts().items(), key=lambda part: -part[1])
    shares = ", ".join(f"{_PARTS[name]} {seconds / timing.seconds:.1%}" for name, seconds in parts)
    return f"a step of {timing.photos} photos takes {timing.seconds:.3f} s: {shares}"


def summarise(trained: Trained, store: str) -> tuple[Result, str]:
    """Return the result for machines and for people."""
    version, metrics, epochs = trained.version, trained.version.metrics, len(trained.history["acc"])
    result = {
        "model": version.name,
        "run": version.run,
        "metrics": metrics,
        "epochs": epochs,
        "minutes": round(metrics["train_seconds"] / 60, 2),
        "photos_per_second": round(trained.photos_per_second, 1),
        "store": store,
    }
    text = (
        f"{version.name}: val_acc {metrics['val_acc']:.4f} in epoch {trained.best_epoch} of {epochs}, "
        f"{result['minutes']:.1f} minutes; history, weights and curves in {store}/runs/{version.run}/"
    )
    return result, text


if __name__ == "__main__":
    console.run(main)
