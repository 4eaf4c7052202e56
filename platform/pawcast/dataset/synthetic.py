"""Drawn cats and dogs for the demo and the tests: learnable from their shape alone, and from nothing else.

A cat has pointed ears, a round face, slit eyes and whiskers; a dog has hanging ears, a long muzzle and a big nose.
Fur, background, light, pose, noise and picture size are drawn from the same distributions for both.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pawcast import files

CLASSES = ("cat", "dog")
_SCALE = 2  # Drawn larger and shrunk, which smooths the edges.
_FURS = (
    (196, 140, 84), (120, 84, 56), (70, 64, 62), (222, 196, 160), (160, 152, 144), (238, 232, 222), (176, 104, 52),
    (98, 98, 110),
)  # fmt: skip
_QUALITY = 88
_EPOCH = (1980, 1, 1, 0, 0, 0)

Colour = tuple[int, ...]
Point = tuple[float, float]


def draw(label: int, seed: int, index: int) -> Image.Image:
    """Draw one animal.

    Args:
        label: 0 for a cat, 1 for a dog.
        seed: Of the whole set.
        index: Of the picture. Equal (label, seed, index) give equal pixels.

    Returns:
        An RGB picture of 120 to 220 pixels a side.
    """
    random = np.random.default_rng([seed, index, label])
    width, height = (int(side) for side in random.integers(120, 221, 2))
    canvas = _background(random, width * _SCALE, height * _SCALE)
    fur = _varied(random, _FURS[random.integers(len(_FURS))], 18)
    unit = min(width, height) * _SCALE * random.uniform(0.26, 0.38)
    centre = (
        canvas.width * random.uniform(0.38, 0.62),
        canvas.height * random.uniform(0.38, 0.58),
    )
    animal = _Animal(canvas, random, centre, unit, fur)
    animal.body()
    (animal.cat if label == 0 else animal.dog)()
    if random.random() < 0.25:
        _occlude(random, canvas)
    return _photographed(random, canvas.resize((width, height), Image.Resampling.BOX))


def write_zips(
    folder: Path,
    *,
    labelled: int,
    unlabelled: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, Path]:
    """Write `train.zip` and `test1.zip` in Kaggle's layout. Equal arguments give equal bytes.

    Args:
        folder: Where to.
        labelled: Pictures in `train.zip`, half of each class, as `train/cat.N.jpg` and `train/dog.N.jpg`.
        unlabelled: Pictures in `test1.zip`, as `test1/N.jpg` from 1.
        seed: Another seed draws other pictures.
        progress: Called with pictures done and in all.

    Returns:
        The two files.

    Raises:
        StoreFullError, StoreError: If they can't be written; older ones then stay as they were.
    """
    total = labelled + unlabelled
    train = [(f"train/{CLASSES[i % 2]}.{i // 2}.jpg", i % 2, i) for i in range(labelled)]
    truth = np.random.default_rng([seed, 0xD06]).integers(0, 2, unlabelled)
    test = [(f"test1/{i + 1}.jpg", int(truth[i]), labelled + i) for i in range(unlabelled)]
    paths = (folder / "train.zip", folder / "test1.zip")
    done = 0
    progress(0, total)
    for path, pictures in zip(paths, (train, test), strict=True):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, label, index in pictures:
                encoded = io.BytesIO()
                draw(label, seed, index).save(encoded, "JPEG", quality=_QUALITY)
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), encoded.getvalue())
                done += 1
                progress(done, total)
        files.write(path, buffer.getvalue())
    return paths


class _Animal:
    """Draws in a frame of its own: origin at the head's centre, unit the head's radius, tilted and mirrored."""

    def __init__(
        self, canvas: Image.Image, random: np.random.Generator, centre: Point, unit: float, fur: Colour
    ) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._random = random
        self._centre, self._unit = centre, unit
        self._angle = math.radians(random.uniform(-28, 28))
        self._mirror = random.choice([-1.0, 1.0])
        self._fur = fur
        self._dark = tuple(int(c * 0.62) for c in fur)
        self._light = tuple(int(c + (255 - c) * 0.45) for c in fur)
        self._pupil = _varied(random, (34, 28, 26), 10)
        self._turn = random.uniform(-0.16, 0.16)

    def body(self) -> None:
        side = self._random.uniform(-0.7, 0.7)
        self._ellipse((side, 1.75), self._random.uniform(0.95, 1.3), self._random.uniform(1.0, 1.3), self._dark)

    def cat(self) -> None:
        for sign in (-1, 1):
            reach = self._random.uniform(1.25, 1.6)
            spread = self._random.uniform(0.72, 0.95)
            self._polygon([(sign * 0.25, -0.85), (sign * 0.98, -0.35), (sign * spread, -reach)], self._fur)
            self._polygon(
                [(sign * 0.42, -0.85), (sign * 0.85, -0.5), (sign * spread * 0.94, -reach * 0.87)],
                self._light,
            )
        self._ellipse((0, 0), 1.05, 0.92, self._fur)
        if self._random.random() < 0.5:
            for x in (-0.22, 0.0, 0.22):
                self._line([(x, -0.85), (x * 0.8, -0.5)], self._dark, 0.07)
        iris = ((124, 160, 70), (206, 164, 60), (104, 150, 176))[self._random.integers(3)]
        for sign in (-1, 1):
            eye = (sign * 0.42 + self._turn, -0.12)
            self._ellipse(eye, 0.22, 0.17, iris)
            self._ellipse(eye, self._random.uniform(0.05, 0.1), 0.16, self._pupil)
        x, y = self._turn, 0.28
        self._polygon([(x - 0.12, y - 0.05), (x + 0.12, y - 0.05), (x, y + 0.1)], (190, 120, 120))
        for sign in (-1, 1):
            self._line([(x, y + 0.1), (x + sign * 0.16, y + 0.26)], self._pupil, 0.035)
            for slope in (-0.16, 0.02, 0.2):
                self._line([(x + sign * 0.25, y + 0.08), (x + sign * 1.2, y + slope)], self._light, 0.025)

    def dog(self) -> None:
        head = self._random.uniform(0.78, 0.92)
        self._ellipse((0, -0.1), head, 0.92, self._fur)
        for sign in (-1, 1):
            drop = self._random.uniform(0.25, 0.6)
            self._ellipse((sign * (head + 0.1), drop - 0.1), self._random.uniform(0.24, 0.34), 0.72, self._dark)
        if self._random.random() < 0.4:
            self._ellipse((0.38 * self._mirror, -0.2), 0.34, 0.36, self._dark)
        for sign in (-1, 1):
            eye = (sign * 0.34 + self._turn, -0.26)
            self._ellipse(eye, 0.13, 0.14, self._pupil)
            self._ellipse((eye[0] - 0.04, eye[1] - 0.05), 0.035, 0.035, (240, 240, 240))
        x = self._turn * 1.6
        if self._random.random() < 0.5:
            self._ellipse((x, 0.88), 0.17, 0.34, (214, 110, 120))
        self._ellipse((x, 0.42), self._random.uniform(0.42, 0.52), self._random.uniform(0.44, 0.54), self._light)
        self._ellipse((x, 0.2), self._random.uniform(0.2, 0.27), 0.17, self._pupil)
        self._line([(x, 0.35), (x, 0.6)], self._pupil, 0.04)
        for sign in (-1, 1):
            self._line([(x, 0.6), (x + sign * 0.24, 0.68)], self._pupil, 0.04)

    def _place(self, point: Point) -> Point:
        x, y = point[0] * self._mirror, point[1]
        cos, sin = math.cos(self._angle), math.sin(self._angle)
        return (
            self._centre[0] + self._unit * (x * cos - y * sin),
            self._centre[1] + self._unit * (x * sin + y * cos),
        )

    def _polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([self._place(point) for point in points], fill=colour)

    def _ellipse(self, centre: Point, rx: float, ry: float, colour: Colour) -> None:
        angles = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        self._polygon([(centre[0] + rx * math.cos(a), centre[1] + ry * math.sin(a)) for a in angles], colour)

    def _line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        self._draw.line([self._place(point) for point in points], fill=colour, width=max(1, round(width * self._unit)))


def _background(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """A gradient with stripes, blobs or a floor, in any colour."""
    corners = random.integers(40, 236, (2, 2, 3), dtype=np.uint8)
    canvas = Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    kind = random.integers(4)
    if kind == 0:
        step = int(random.integers(14, 46)) * _SCALE
        for left in range(-height, width, step):
            pen.line([(left, 0), (left + height, height)], fill=_any_colour(random), width=step // 4)
    elif kind == 1:
        for _ in range(int(random.integers(4, 14))):
            x, y, r = random.uniform(0, width), random.uniform(0, height), random.uniform(6, 34) * _SCALE
            pen.ellipse((x - r, y - r, x + r, y + r), fill=_any_colour(random))
    elif kind == 2:
        pen.rectangle((0, height * random.uniform(0.55, 0.85), width, height), fill=_any_colour(random))
    return canvas


def _occlude(random: np.random.Generator, canvas: Image.Image) -> None:
    """Put something in front of a part of the picture."""
    pen = ImageDraw.Draw(canvas)
    x, y = random.uniform(0, canvas.width), random.uniform(0.6, 1) * canvas.height
    w, h = random.uniform(0.05, 0.18, 2) * canvas.width
    pen.rectangle((x - w, y - h, x + w, y + h), fill=_any_colour(random))


def _photographed(random: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Add what a camera adds: blur, another exposure, noise."""
    if random.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 1.3)))
    pixels = np.asarray(picture, np.float32) * random.uniform(0.65, 1.2) + random.uniform(-18, 18)
    # One plane of grain for all three colours, drawn once at half the size: as good, and four times quicker.
    grain = random.standard_normal(((pixels.shape[0] + 1) // 2, (pixels.shape[1] + 1) // 2), np.float32)
    grain = grain.repeat(2, 0).repeat(2, 1)[: pixels.shape[0], : pixels.shape[1], None]
    return Image.fromarray(np.clip(pixels + grain * random.uniform(2, 14), 0, 255).astype(np.uint8))


def _any_colour(random: np.random.Generator) -> Colour:
    return tuple(int(c) for c in random.integers(30, 236, 3))


def _varied(random: np.random.Generator, colour: Colour, by: int) -> Colour:
    return tuple(int(np.clip(c + d, 0, 255)) for c, d in zip(colour, random.integers(-by, by + 1, 3), strict=True))
