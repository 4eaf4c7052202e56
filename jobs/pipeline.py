"""The main job, whole: ingest, train, evaluate, promote, deploy, predict in bulk, predict one, clean up."""

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from pawcast_infra.local.private_ray import deploy, private_ray
from rich.table import Table

from pawcast.core import atomic, console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.errors import EXIT_INTERRUPTED, ConflictError, PawcastError, ServiceError

_JOBS = Path(__file__).resolve().parent
_CONFIG = _JOBS.parent / "serve" / "config.yaml"


class StepFailedError(PawcastError):
    """A step that has said itself what is wrong; the pipeline ends with its exit code."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step} failed", fix="see the line above")
        self.exit_code = code


def main(
    labelled: Annotated[str, typer.Option(help="Zip or folder with labels in the names, or a CSV of file,label.")],
    unlabelled: Annotated[str, typer.Option(help="Zip or folder of photos to predict.")],
    dataset: Annotated[str, typer.Option(help="The dataset's name.")] = "dogs-vs-cats",
    recipe: Annotated[str, typer.Option(help="The recipe to train.")] = "article",
    workers: Annotated[int, typer.Option(min=1, help="Data-parallel workers.")] = 2,
    test_size: Annotated[int, typer.Option(min=1, help="Labelled photos held out.")] = 1_000,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value for the recipe; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for predictions, pictures and the report.")] = Path("var/run"),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The service's port.")] = 8_000,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """The main job, whole: ingest, train, evaluate, promote, deploy, predict in bulk, predict one, clean up.

    Runs on a private local Ray that ends with it. Prints each step's command, so that you can run it yourself.
    """
    require_free(port)
    started = time.monotonic()
    uri = store_uri(store)
    url = f"http://127.0.0.1:{port}"
    with private_ray(uri, workers) as environment:

        def step(job: str, *options: str) -> Result:
            return run_step(environment, job, *options)

        ingested = step(
            "ingest", "--labelled", labelled, "--unlabelled", unlabelled, "--dataset", dataset,
            "--test-size", str(test_size),
        )  # fmt: skip
        overrides = [word for setting in settings or [] for word in ("--set", setting)]
        trained = step("train", "--dataset", dataset, "--recipe", recipe, "--workers", str(workers), *overrides)
        evaluated = step("evaluate", "--model", trained["model"], "--out", str(out / "report"))
        name, _, version = trained["model"].partition("@")
        step("promote", name, version, "production")
        config = out / "serve.yaml"
        announce(f"serve deploy {config}")
        served = deploy(_CONFIG, environment, port, config)
        console.console.print(f"{url} serves {served}")
        # The model is new, so whatever an interrupted run left there belongs to another one.
        predicted = step(
            "bulk_predict", "--images", unlabelled, "--url", url, "--out", str(out / "predictions"), "--fresh"
        )
        one = step("predict_one", first_photo(unlabelled, out), "--url", url)
    result = {
        "model": trained["model"],
        "accuracy": evaluated["accuracy"],
        "interval": evaluated["interval"],
        "photos_per_second": {
            "ingest": ingested["photos_per_second"],
            "train": trained["photos_per_second"],
            "evaluate": evaluated["photos_per_second"],
            "predict over HTTP": predicted["photos_per_second"],
        },
        "one": one,
        "predictions": predicted["predictions"],
        "picture": predicted["picture"],
        "report": evaluated["report"],
        "seconds": round(time.monotonic() - started, 1),
    }
    atomic.write(out / "summary.json", json.dumps(result, indent=1).encode())
    show(result, ingested, predicted["photos"])
    return result, f"done in {result['seconds']:,.0f} s"


def require_free(port: int) -> None:
    """Refuse a port that somebody else listens on, before any work is done."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConflictError(
                f"Port {port} is taken", expected="a free port for the service",
                fix="choose another: PORT=8001 or --port 8001",
            ) from None  # fmt: skip


def announce(command: str) -> None:
    """Print the command that a user would run."""
    console.console.print(f"\n[bold cyan]$ {command}[/]", soft_wrap=True)


def run_step(environment: dict[str, str], job: str, *options: str) -> Result:
    """Run a job as a user would; return its result. Its progress goes to the terminal.

    Raises:
        StepFailedError: If it fails; it has said why by then.
    """
    announce(f"python jobs/{job}.py {' '.join(options)}")
    command = [sys.executable, str(_JOBS / f"{job}.py"), *options, "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            # The terminal has sent it to the step as well; a caller's kill has not. The step ends in order.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if process.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        raise StepFailedError(job, process.returncode)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def first_photo(source: str, out: Path) -> str:
    """Take one photo out of the source, to be classified as a picture from outside."""
    from pawcast.data import sources
    from pawcast.errors import ImageError

    for photo in sources.scan(source):
        (data,) = sources.read(source, [photo])
        if not isinstance(data, ImageError):
            path = out / f"one{Path(photo.name).suffix}"
            atomic.write(path, data)
            return str(path)
    raise ServiceError("No photo could be read", received=source)


def show(result: Result, ingested: Result, predicted: int) -> None:
    """Print the summary."""
    low, high = result["interval"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    counts = ingested["photos"]
    table.add_row("photos", ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    table.add_row("accuracy", f"[bold]{result['accuracy']:.3f}[/] on those held out (95%: {low:.3f} to {high:.3f})")
    for stage, rate in result["photos_per_second"].items():
        table.add_row(stage, f"{rate:,.0f} photos/s")
    one = result["one"]
    table.add_row("one picture", f"{one['photo']}: {one['label']} {one['probability']:.1%}")
    table.add_row("predictions", f"{result['predictions']} ({predicted:,} rows)")
    table.add_row("picture", result["picture"])
    table.add_row("report", result["report"])
    console.console.print()
    console.console.print(table)


if __name__ == "__main__":
    console.run(main)
