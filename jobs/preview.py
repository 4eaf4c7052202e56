"""Show on one photo, as a picture, what a recipe's augmentation does."""

from pathlib import Path
from typing import Annotated

import typer

from pawcast import recipes
from pawcast.core import atomic, console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.data.reader import SplitReader
from pawcast.errors import ImageError, NotFoundError
from pawcast.evaluation.reports.preview import draw_preview
from pawcast.store import open_store
from pawcast.vision import preprocess


def main(
    dataset: Annotated[str, typer.Option(help="NAME, or NAME@DIGEST.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(recipes.RECIPES)}.")] = "article",
    photo: Annotated[
        str | None, typer.Option(help="A training photo's id, such as cat.7, or a picture's path. [default: the first]")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value for the recipe; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("var/preview.png"),
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Show on one photo, as a picture, what a recipe's augmentation does."""
    config = recipes.resolve(recipe, settings)
    name, data = find(store_uri(store), dataset, photo)
    try:
        pixels = preprocess.load_image(data, config.image_size)
    except ImageError as error:
        raise ImageError(f"{name} can't be used", received=error.what) from None
    picture = draw_preview(pixels, config.augment, name, config.seed)
    atomic.write(out, picture)
    return {"photo": name, "recipe": recipe, "picture": str(out)}, f"{name}, augmented as by {recipe}: {out}"


def find(uri: str, dataset: str, wanted: str | None) -> tuple[str, bytes]:
    """Return a photo's name and bytes: an existing file, else the wanted training photo, or the first."""
    place = open_store(uri)
    reader = SplitReader.open(place, dataset, "train")
    try:
        if wanted is not None and Path(wanted).is_file():
            return wanted, Path(wanted).read_bytes()
    except OSError as error:
        raise NotFoundError(f"{wanted} can't be read", received=error.strerror, expected="a picture") from None
    if row := next(iter(reader)) if wanted is None else reader.find(wanted):
        return row.id, row.data
    raise NotFoundError(
        "The training split has no such photo", received=repr(wanted),
        expected="an id such as cat.7, as ingest saw it, or the path of a picture",
        fix="leave --photo out to take the first; a held-out or validation photo is never augmented",
    )  # fmt: skip


if __name__ == "__main__":
    console.run(main)
