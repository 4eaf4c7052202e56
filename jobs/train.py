"""Train a recipe on a dataset; register the best epoch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pawcast import recipes
from pawcast.core import command, plugins
from pawcast.core.command import Result, SetOption, StoreOption
from pawcast.core.console import ProgressBars, console
from pawcast.errors import UsageError

if TYPE_CHECKING:
    from pawcast.training.progress import ProgressUpdate
    from pawcast.training.timing import StepTiming
    from pawcast.training.trainer import Trained

_RECIPE = f"One of {', '.join(recipes.RECIPES)}; or your own, package.module:function. [default: article]"
_MODEL = "The model that gets a new version; or your own Keras model, package.module:function. [default: catdog]"
_WORKERS = "Data-parallel workers. [default: 1; one for each GPU with --gpus-per-worker]"
_CPUS = "CPUs of each worker. [default: all CPUs, divided among the workers]"
_RESUME = "Continue this run, which was stopped, instead of a new one."


def main(
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="The dataset: NAME or NAME@DIGEST.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help=_RECIPE)] = None,
    settings: SetOption = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help=_MODEL)] = None,
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of the run. [default: the recipe and the time]")
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help=_RESUME)] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help=_WORKERS)] = None,
    cpus_per_worker: Annotated[float | None, typer.Option(metavar="N", min=0.1, help=_CPUS)] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(metavar="N", min=0.0, help="GPUs of each worker. [default: 0]")
    ] = None,
    max_failures: Annotated[
        int, typer.Option(metavar="N", min=0, help="How often to restart the workers before the run fails.")
    ] = 3,
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Train a recipe on a dataset; register the best epoch.

    The best epoch by validation becomes a new version of the model. A run that was stopped
    continues from its last checkpoint with --resume.

    Example: pawcast train --dataset dogs-vs-cats --recipe article --set epochs=3
    """
    import pawcast
    from pawcast.training import runs
    from pawcast.training.trainer import Callbacks

    store = pawcast.open_store(store_uri)
    resources = {"number": workers, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
    given = runs.Workers.model_validate({name: value for name, value in resources.items() if value is not None})
    if resume:
        refuse_with_resume({"dataset": dataset, "recipe": recipe, "run": run, "model": model, "set": settings})
        record = runs.load(store, resume)
        config = record.recipe
        about = f"{config.name} on {record.dataset}@{record.dataset_sha256[:12]}"
        console.print(f"[bold]resuming[/] {resume}, started {record.started}: {about}", soft_wrap=True)
    else:
        if dataset is None:
            raise UsageError("No dataset", expected="--dataset NAME, or --resume RUN")
        overrides = list(settings or [])
        if model and plugins.is_reference(model):
            overrides.insert(0, f"model={model}")
            model = None
        config = recipes.resolve(recipe or "article", overrides)
        console.print(f"[bold]recipe[/] {config.model_dump_json()}", soft_wrap=True)
    with ProgressBars() as progress:
        callbacks = Callbacks(
            progress=progress,
            update=lambda update: show(update, config.epochs, progress),
            note=lambda note: console.print(f"[yellow]note:[/] {note}", soft_wrap=True),
        )
        options: dict[str, Any] = {"max_failures": max_failures, "callbacks": callbacks, "store": store}
        if resume:
            trained = pawcast.resume(resume, workers=given if given.model_fields_set else None, **options)
        else:
            trained = pawcast.train(str(dataset), config, workers=given, model=model or "catdog", run=run, **options)
    return summary(trained, store.uri)


def refuse_with_resume(options: dict[str, object]) -> None:
    """Refuse options that contradict --resume. Raises `UsageError`."""
    if given := [f"--{name}" for name, value in options.items() if value]:
        what = "--resume takes recipe, dataset and names from the run"
        raise UsageError(what, received=" and ".join(given), expected="--resume without them")


def show(update: "ProgressUpdate", epochs: int, progress: ProgressBars) -> None:
    """Print the network once, move the epoch's bar, and end each epoch with a line."""
    if update.summary:
        console.print(update.summary, markup=False)
    elif update.resumed:
        console.print(f"continuing after epoch {update.resumed} of {epochs}, from its checkpoint")
    elif update.timing:
        console.print(f"[bold]timing[/] {describe(update.timing)}", soft_wrap=True)
    else:
        epoch = f"epoch {update.epoch + 1:>2}/{epochs}  loss {update.loss:.4f}  acc {update.acc:.4f}"
        rate = f"{update.photos_per_second:,.0f} photos/s"
        if row := update.finished:
            scores = (
                f"  val_loss {row['val_loss']:.4f}  val_acc [bold]{row['val_acc']:.4f}[/]" if "val_acc" in row else ""
            )
            console.print(f"{epoch}{scores}  {row['seconds']:,.0f} s  {rate}", soft_wrap=True)
        done, total = update.epoch * update.steps + update.step, epochs * update.steps
        progress("training", done, total, f"{epoch}  {rate}", unit="steps")


def describe(timing: "StepTiming") -> str:
    """Return the parts of an average step as a line, the longest part first."""
    parts = sorted(timing["parts"].items(), key=lambda part: -part[1])
    shares = ", ".join(f"{name.replace('_', ' ')} {seconds / timing['seconds']:.1%}" for name, seconds in parts)
    return f"a step of {timing['photos']} photos takes {timing['seconds']:.3f} s: {shares}"


def summary(trained: "Trained", store: str) -> tuple[Result, str]:
    """Return the result for machines and for people."""
    version, metrics, epochs = trained.version, trained.version.metrics, len(trained.history["acc"])
    minutes = round(metrics["train_seconds"] / 60, 2)
    result = {
        "model": version.name,
        "run": version.run,
        "metrics": metrics,
        "epochs": epochs,
        "minutes": minutes,
        "photos_per_second": round(trained.photos_per_second, 1),
        "store": store,
    }
    text = (
        f"{version.name}: val_acc {metrics['val_acc']:.4f} in epoch {trained.best_epoch} of {epochs}, "
        f"{minutes:.1f} minutes; history, weights and curves in {store}/runs/{version.run}/"
    )
    return result, text


if __name__ == "__main__":
    command.run(main)
