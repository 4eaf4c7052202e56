"""Do the whole job on your photos, from ingest to predictions."""

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pawcast.core import atomic, command
from pawcast.core.command import CommandError, Result, SetOption, StoreOption
from pawcast.core.console import console
from pawcast.core.settings import store_uri
from pawcast.errors import EXIT_INTERRUPTED, ConflictError, DataError, ImageError


def main(
    labelled: Annotated[
        str, typer.Option(metavar="SOURCE", help="Labelled photos: a zip or a folder, or a CSV of file,label.")
    ],
    unlabelled: Annotated[str, typer.Option(metavar="SOURCE", help="A zip or a folder of photos to predict.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The name of the dataset.")] = "dogs-vs-cats",
    recipe: Annotated[str, typer.Option(metavar="NAME", help="The recipe to train.")] = "article",
    settings: SetOption = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Data-parallel workers. [default: 1]")] = None,
    test_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many labelled photos go to the test split.")
    ] = 1_000,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write predictions, pictures and the report.")
    ] = Path("var/run"),
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65_535, help="The port of the service.")] = 8_000,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Do the whole job on your photos, from ingest to predictions.

    The steps: ingest, train, evaluate, promote, deploy, bulk-predict, predict. Each command is
    printed, so that you can run it yourself. Everything runs on a private local Ray, which stops
    at the end.

    Example: pawcast run --labelled train.zip --unlabelled test1.zip
    """
    from pawcast_infra.local.private_ray import deploy, private_ray

    require_free_port(port)
    started = time.monotonic()
    url, folder = f"http://127.0.0.1:{port}", str(out / "predictions")
    options = [word for setting in settings or [] for word in ("--set", setting)]
    if workers:
        options += ["--workers", str(workers)]
    with private_ray(store_uri(store), workers or 1) as environment:
        step = partial(run_step, environment)
        sources = ("--labelled", labelled, "--unlabelled", unlabelled)
        ingested = step("ingest", *sources, "--dataset", dataset, "--test-size", str(test_size))
        trained = step("train", "--dataset", dataset, "--recipe", recipe, *options)
        evaluated = step("evaluate", "--model", trained["model"], "--out", str(out / "report"))
        step("promote", *trained["model"].split("@"), "production")
        print_command("serve", "deploy", str(out / "serve.yaml"))
        with as_file(files("pawcast_serve") / "config.yaml") as template:
            served = deploy(template, environment, port, out / "serve.yaml")
        console.print(f"{url} serves {served}")
        # --fresh: a journal that an interrupted run left there belongs to another model.
        predicted = step("bulk-predict", "--images", unlabelled, "--url", url, "--out", folder, "--fresh")
        one = step("predict", first_photo(unlabelled, out), "--url", url)
    steps = {"ingest": ingested, "train": trained, "evaluate": evaluated, "predict_http": predicted}
    result = {
        **{name: evaluated[name] for name in ("model", "accuracy", "interval", "report")},
        "photos_per_second": {name: done["photos_per_second"] for name, done in steps.items()},
        "one": one,
        **{name: predicted[name] for name in ("predictions", "picture")},
        "seconds": round(time.monotonic() - started, 1),
    }
    atomic.write(out / "summary.json", json.dumps(result, indent=1).encode())
    show(result, ingested["photos"])
    return result, f"finished in {result['seconds']:,.0f} s"


def require_free_port(port: int) -> None:
    """Raise `ConflictError` if the port is taken, before any work is done."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            fix = "choose another one: --port 8001, or PORT=8001 with make"
            raise ConflictError(f"Port {port} is taken", expected="a free port for the service", fix=fix) from None


def print_command(*words: str) -> None:
    """Print a command that a user can run."""
    console.print()
    console.print(f"$ {shlex.join(words)}", style="bold cyan", soft_wrap=True, markup=False)


def run_step(environment: dict[str, str], name: str, *options: str) -> Result:
    """Run a subcommand of `pawcast` in a process of its own, and return its result.

    Raises:
        CommandError: If it fails. It has printed the reason by then.
        KeyboardInterrupt: If it was interrupted.
    """
    print_command("pawcast", name, *options)
    arguments = [sys.executable, "-m", "pawcast_jobs.cli", name, *options, "--json"]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            # A terminal sends Ctrl-C to the step as well, but `kill` reaches this process only.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if process.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        raise CommandError(f"pawcast {name} failed", process.returncode)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def first_photo(source: str, out: Path) -> str:
    """Copy the first readable photo of a source to a file, and return its path."""
    from pawcast.data import sources

    for photo in sources.scan(source).photos:
        (data,) = sources.read(source, [photo])
        if not isinstance(data, ImageError):
            path = out / f"one{Path(photo.name).suffix}"
            atomic.write(path, data)
            return str(path)
    raise DataError("No photo can be read", received=source)


def show(result: Result, photos: dict[str, int]) -> None:
    """Print the results of all steps."""
    low, high = result["interval"]
    one = result["one"]
    rows = {
        "photos": ", ".join(f"{count:,} {split}" for split, count in photos.items()),
        "accuracy": f"[bold]{result['accuracy']:.3f}[/] on the test split (95%: {low:.3f} to {high:.3f})",
        **{
            step.replace("_http", " over HTTP"): f"{rate:,.0f} photos/s"
            for step, rate in result["photos_per_second"].items()
        },
        "one photo": f"{one['photo']}: {one['label']} {one['probability']:.1%}",
        **{name: result[name] for name in ("predictions", "picture", "report")},
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in rows.items():
        table.add_row(name, text)
    console.print()
    console.print(table)


if __name__ == "__main__":
    command.run(main)
