"""What augmentation does to one photo: each transform alone at its end, then all of them as training draws them."""

from __future__ import annotations

import numpy as np

from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.recipes.schema import Augmentation
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.vision.augment.sample import AugmentationParams, compose_affine, identity_params, sample_params
from pawcast.vision.augment.warp import augment_batch

_DRAWS = 16
_NEUTRAL = {"rotation": 0.0, "shift_x": 0.0, "shift_y": 0.0, "shear": 0.0, "zoom_x": 1.0, "zoom_y": 1.0, "flip": 0.0}


def draw_preview(pixels: np.ndarray, augment: Augmentation, name: str, seed: int = 0) -> bytes:
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
    # Caption, range, and the one change at the end of that range.
    warps: list[tuple[str, str, dict[str, float]]] = [
        ("rotation", f"±{augment.rotation:g}°", {"rotation": np.deg2rad(augment.rotation)}),
        ("width shift", f"±{augment.width_shift:g} of the width", {"shift_x": augment.width_shift * size}),
        ("height shift", f"±{augment.height_shift:g} of the height", {"shift_y": augment.height_shift * size}),
        ("shear", f"±{augment.shear:g}°", {"shear": np.deg2rad(augment.shear)}),
        ("zoom in", f"shows {near:g} of each side", {"zoom_x": near, "zoom_y": near}),
        ("zoom out", f"shows {far:g} of each side", {"zoom_x": far, "zoom_y": far}),
        ("horizontal flip", "half of the photos", {"flip": augment.horizontal_flip}),
        (
            "crop",
            f"{augment.crop_area:g} of the area or more",
            {"crop_x": augment.crop_area**0.5, "crop_y": augment.crop_area**0.5},
        ),
    ]
    color_factors: list[tuple[str, str, tuple[float, float, float]]] = [
        ("brightness", f"±{augment.brightness:g}", (augment.brightness, 1, 1)),
        ("contrast", f"± {augment.contrast:.0%}", (0, 1 + augment.contrast, 1)),
        ("saturation", f"± {augment.saturation:.0%}", (0, 1, 1 + augment.saturation)),
    ]
    edge = (1 - augment.cutout) / 2
    count = len(warps) + len(color_factors) + 1
    singles = identity_params(size, size, count)
    for row, (*_, change) in enumerate(warps):
        whole = {**_NEUTRAL, **change}
        singles.transforms[row] = compose_affine(
            size, size, **{key: np.array([value]) for key, value in whole.items()}
        )[0]
    singles.color_factors[len(warps) : -1] = [values for *_, values in color_factors]
    singles.cutouts[-1] = [edge, edge, 1 - edge, 1 - edge]
    # A hole of no width hides nothing.
    singles.cutouts[:-1] = 0
    plain = identity_params(size, size, 1)
    captions = [
        *(
            (caption, limits if (singles.transforms[i] != plain.transforms[0]).any() else "off")
            for i, (caption, limits, _) in enumerate(warps)
        ),
        *((caption, limits if values != (0, 1, 1) else "off") for caption, limits, values in color_factors),
        ("cutout", f"a square of {augment.cutout:g} of the side" if augment.cutout else "off"),
    ]
    draws = sample_params(augment, size, size, _DRAWS, seed, epoch=0)
    everything = AugmentationParams(*(np.concatenate(parts) for parts in zip(singles, draws, strict=True)))
    configure_tensorflow()
    warped = augment_batch(augment, np.repeat(pixels[None], count + _DRAWS, 0), everything, size).numpy() * 255
    photos = np.rint(warped).astype(np.uint8)
    return draw_contact_sheet(
        [
            (
                "Each transform alone, at the end of its range; nearest pixels fill what the photo doesn't cover",
                [
                    Tile(pixels, "the photo", f"{size} × {size}"),
                    *(Tile(photo, *caption) for photo, caption in zip(photos[:count], captions, strict=True)),
                ],
            ),
            (
                f"All together, as training draws them with seed {seed}",
                [Tile(photo, f"draw {i + 1}") for i, photo in enumerate(photos[count:])],
            ),
        ],
        f"Augmentation of {name}",
    )
