"""What augmentation does to one photo: each transform alone at its end, then all of them as training draws them."""

from __future__ import annotations

import numpy as np

from pawcast.augment import compose, draw_transforms, to_unit, warp
from pawcast.devices import configure_tensorflow
from pawcast.recipe import Augment
from pawcast.reports.gallery import Tile, draw_contact_sheet

_DRAWS = 16


def draw_preview(pixels: np.ndarray, augment: Augment, name: str, seed: int = 0) -> bytes:
    """Draw one photo and its augmented versions.

    Args:
        pixels: uint8 [S, S, 3].
        augment: The recipe's ranges.
        name: The photo's, for the title.
        seed: Of the random draws; training's own for epoch 0 if it is the recipe's seed.

    Returns:
        A PNG.
    """
    size = len(pixels)
    near, far = 1 - augment.zoom, 1 + augment.zoom
    # Caption, range, and the end of that range as `compose` takes it.
    alone: list[tuple[str, str, dict[str, float]]] = [
        ("rotation", f"±{augment.rotation:g}°", {"rotation": np.deg2rad(augment.rotation)}),
        ("width shift", f"±{augment.width_shift:g} of the width", {"shift_x": augment.width_shift * size}),
        ("height shift", f"±{augment.height_shift:g} of the height", {"shift_y": augment.height_shift * size}),
        ("shear", f"±{augment.shear:g}°", {"shear": np.deg2rad(augment.shear)}),
        ("zoom in", f"shows {near:g} of each side", {"zoom_x": near, "zoom_y": near}),
        ("zoom out", f"shows {far:g} of each side", {"zoom_x": far, "zoom_y": far}),
        ("horizontal flip", "half of the photos", {"flip": augment.horizontal_flip}),
    ]
    neutral = {
        "rotation": 0.0,
        "shift_x": 0.0,
        "shift_y": 0.0,
        "shear": 0.0,
        "zoom_x": 1.0,
        "zoom_y": 1.0,
        "flip": False,
    }
    rows = [{**neutral, **change} for *_, change in alone]
    singles = compose(size, **{key: np.array([row[key] for row in rows]) for key in neutral})
    draws = draw_transforms(augment, size, _DRAWS, seed, epoch=0)
    configure_tensorflow()
    warped = (
        warp(to_unit(np.repeat(pixels[None], len(rows) + _DRAWS, 0)), np.concatenate([singles, draws])).numpy() * 255
    )
    photos = np.rint(warped).astype(np.uint8)
    return draw_contact_sheet(
        [
            (
                "Each transform alone, at the end of its range; nearest pixels fill what the photo doesn't cover",
                [
                    Tile(pixels, "the photo", f"{size} × {size}"),
                    *(
                        Tile(photo, caption, limits if row != neutral else "off")
                        for photo, (caption, limits, _), row in zip(photos[: len(rows)], alone, rows, strict=True)
                    ),
                ],
            ),
            (
                f"All together, as training draws them with seed {seed}",
                [Tile(photo, f"draw {i + 1}") for i, photo in enumerate(photos[len(rows) :])],
            ),
        ],
        f"Augmentation of {name}",
    )
