"""Draw what a recipe's augmentation does to one photo."""

from pathlib import Path
from typing import Annotated

import typer

from pawcast import recipes
from pawcast.core import command
from pawcast.core.command import Result, SetOption, StoreOption
from pawcast.errors import ImageError, NotFoundError


def main(
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset: NAME or NAME@DIGEST.")],
    recipe: Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(recipes.RECIPES)}.")] = "article",
    photo: Annotated[
        str | None,
        typer.Option(
            metavar="PHOTO",
            help="The id of a training photo, such as cat.7, or a file. [default: the first training photo]",
        ),
    ] = None,
    settings: SetOption = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the picture.")] = Path("var/preview.png"),
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Draw what a recipe's augmentation does to one photo.

    Example: pawcast preview --dataset pets --recipe fast --photo cat.7
    """
    from pawcast.core import atomic
    from pawcast.evaluation.reports.preview import draw_preview
    from pawcast.vision import preprocess

    config = recipes.resolve(recipe, settings)
    name, data = find(store_uri, dataset, photo)
    try:
        pixels = preprocess.load_image(data, config.image_size)
    except ImageError as error:
        raise ImageError(f"{name} can't be used", received=error.what) from None
    atomic.write(out, draw_preview(pixels, config.augment, name, config.seed))
    return {"photo": name, "recipe": recipe, "picture": str(out)}, f"{name}, augmented by {recipe}: {out}"


def find(store_uri: str | None, dataset: str, wanted: str | None) -> tuple[str, bytes]:
    """Return a photo's name and bytes: a file, or the wanted training photo, or the first one."""
    import pawcast
    from pawcast.data.reader import SplitReader

    reader = SplitReader.open(pawcast.open_store(store_uri), dataset, "train")
    try:
        if wanted is not None and Path(wanted).is_file():
            return wanted, Path(wanted).read_bytes()
    except OSError as error:
        raise NotFoundError(f"{wanted} can't be read", received=error.strerror, expected="a picture") from None
    if row := next(iter(reader)) if wanted is None else reader.find(wanted):
        return row.id, row.data
    expected = "the id of a training photo, such as cat.7, or the path of a picture"
    raise NotFoundError("The training split has no such photo", received=repr(wanted), expected=expected)


if __name__ == "__main__":
    command.run(main)
