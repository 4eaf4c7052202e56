"""Drawn cats and dogs for the demo and the tests. The classes differ in shape, not in color.

A cat has pointed ears, a round face, slit eyes, whiskers and a small nose. A dog has hanging ears,
a long muzzle and a big oval nose. Fur, background, light, pose, noise and size come from the same
distributions for both.
"""

from __future__ import annotations

import colorsys
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pawcast.core import atomic
from pawcast.core.progress import Counter, Progress, silent

CLASSES = ("cat", "dog")
_SCALE = 2  # Pictures are drawn this much larger and then shrunk, which smooths the edges.
_FURS = ((216, 148, 84), (126, 90, 62), (70, 66, 68), (230, 206, 168), (162, 160, 162), (240, 235, 228))
_INK, _PINK, _WHITE, _GREEN = (38, 30, 30), (220, 140, 138), (252, 250, 246), (136, 178, 84)
_EDGE = 0.045  # The width of outlines, in units of the head's radius.

Color = tuple[int, ...]


def draw(label: int, seed: int, index: int) -> Image.Image:
    """Draw one animal. Equal arguments give equal pixels.

    Args:
        label: 0 for a cat, 1 for a dog.
        seed: The seed of the whole set, at least 0.
        index: The index of the picture in the set, at least 0.

    Returns:
        An RGB picture with sides of 120 to 220 pixels.
    """
    rng = np.random.default_rng([seed, index, label])
    width, height = (int(side) for side in rng.integers(120, 221, 2))
    canvas = _background(rng, width * _SCALE, height * _SCALE)
    pen = _Pen(rng, canvas)
    _body(rng, pen)
    (_cat if label == 0 else _dog)(rng, pen, rng.uniform(-0.24, 0.24))
    return _photographed(rng, canvas.reduce(_SCALE))


def write_zips(
    folder: Path,
    *,
    labelled: int,
    unlabelled: int,
    seed: int,
    progress: Progress = silent,
) -> tuple[Path, Path]:
    """Write `train.zip` and `test1.zip` in Kaggle's layout. Equal arguments give equal bytes.

    Args:
        folder: The folder to write to.
        labelled: Pictures in `train.zip`, half of each class: `train/cat.N.jpg` and
            `train/dog.N.jpg`, N from 0.
        unlabelled: Pictures in `test1.zip`: `test1/N.jpg`, N from 1, in random order of classes.
        seed: Another seed draws other pictures.
        progress: Receives reports of the progress.

    Returns:
        The paths of the two files.

    Raises:
        StoreFullError, StoreError: If a file can't be written. An older file stays as it was.
    """
    total = labelled + unlabelled
    train = [(f"train/{CLASSES[i % 2]}.{i // 2}.jpg", i % 2, i) for i in range(labelled)]
    truth = np.random.default_rng([seed, 0xD06]).integers(0, 2, unlabelled)
    test = [(f"test1/{i + 1}.jpg", int(truth[i]), labelled + i) for i in range(unlabelled)]
    paths = (folder / "train.zip", folder / "test1.zip")
    drawn = Counter(progress, "drawing", total)
    for path, pictures in zip(paths, (train, test), strict=True):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, label, index in pictures:
                encoded = io.BytesIO()
                draw(label, seed, index).save(encoded, "JPEG", quality=88)
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                # Without these fields the zip depends on the operating system, and unzip creates
                # files without read permission.
                info.create_system, info.external_attr = 3, 0o100644 << 16
                archive.writestr(info, encoded.getvalue())
                drawn(1)
        atomic.write(path, buffer.getvalue())
    return paths


class _Pen:
    """Draws shapes in the coordinates of an animal's head, and knows the colors of its fur.

    A point is x + yj, with y downwards: 0 is the center of the head, 1 is its radius. Place, size
    and tilt of the head are random.
    """

    def __init__(self, rng: np.random.Generator, canvas: Image.Image) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._origin = complex(canvas.width * rng.uniform(0.4, 0.6), canvas.height * rng.uniform(0.4, 0.52))
        self._unit = min(canvas.size) * rng.uniform(0.28, 0.38)
        self._turn = self._unit * np.exp(1j * rng.uniform(-0.36, 0.36))
        fur = np.array(_FURS[rng.integers(len(_FURS))]) + rng.integers(-16, 17) + rng.integers(-7, 8, 3)
        self.fur = tuple(np.clip(fur, 0, 255).tolist())
        self.light = tuple((c + 250) // 2 for c in self.fur)
        self.line = _shaded(self.fur, 0.45)
        self.ears = _shaded(self.fur, 0.66) if rng.random() < 0.5 else self.fur

    def shape(self, points: Sequence[complex] | np.ndarray, color: Color, edge: Color | None = None) -> None:
        """Draw a polygon, with an outline if `edge` is given."""
        z = np.asarray(points, np.complex128)
        if edge:
            spokes = z - z.mean()
            self._draw.polygon(self._placed(z + spokes * (_EDGE / abs(spokes).mean())), fill=edge)
        self._draw.polygon(self._placed(z), fill=color)

    def oval(
        self, center: complex, rx: float, ry: float, color: Color, edge: Color | None = None, tilt: float = 0
    ) -> None:
        """Draw an ellipse, with an outline if `edge` is given."""
        circle = np.exp(2j * np.pi * np.arange(36) / 36)
        self.shape(center + (rx * circle.real + 1j * ry * circle.imag) * np.exp(1j * tilt), color, edge)

    def line_to(self, start: complex, end: complex, color: Color, width: float = _EDGE) -> None:
        """Draw a straight line."""
        points = self._placed(np.array([start, end]))
        self._draw.line(points, fill=color, width=max(2, round(width * self._unit)))

    def _placed(self, z: np.ndarray) -> list[float]:
        return (self._origin + self._turn * z).view(np.float64).tolist()


def _body(rng: np.random.Generator, pen: _Pen) -> None:
    """Draw a sitting body from the front: haunches, chest, two legs."""
    x, broad = rng.uniform(-0.35, 0.35), rng.uniform(0.85, 1.05)
    for side in (-1, 1):
        pen.oval(x + side * 0.72 * broad + 2.6j, 0.5, 0.56, pen.fur, pen.line)
    pen.oval(x * 0.8 + 1.75j, broad, 1.32, pen.fur, pen.line)
    pen.oval(x * 0.8 + 1.55j, 0.46, 0.85, pen.light)
    for side in (-1, 1):
        pen.oval(x + side * 0.36 + 2.45j, 0.26, 0.72, pen.fur, pen.line)


def _cat(rng: np.random.Generator, pen: _Pen, turn: float) -> None:
    """Draw pointed ears, a round face, slit eyes, a small nose and whiskers."""
    tall, spread, slit = rng.uniform((1.36, 0.72, 0.05), (1.66, 0.95, 0.11)).tolist()
    for side in (-1, 1):
        tip = side * spread + turn * 0.3 - tall * 1j
        pen.shape([side * 0.18 - 0.8j, tip, side * 1.01 - 0.2j], pen.ears, pen.line)
        pen.shape([side * 0.38 - 0.75j, tip * 0.93 + 0.1j, side * 0.86 - 0.45j], _PINK)
    pen.oval(0j, 1.04, 0.9, pen.fur, pen.line)
    nose = turn * 1.25 + 0.26j
    pen.oval(nose + 0.2j, 0.4, 0.24, pen.light)
    pen.shape([nose - 0.13 - 0.06j, nose + 0.13 - 0.06j, nose + 0.1j], _PINK)
    for side in (-1, 1):
        eye = turn + side * 0.43 - 0.12j
        pen.oval(eye, 0.22, 0.16, _GREEN, _INK, tilt=-side * 0.22)
        pen.oval(eye, slit, 0.155, _INK)
        for slope in (-0.2, 0.02, 0.24):
            root = nose + side * 0.26 + (0.14 + slope * 0.3) * 1j
            pen.line_to(root, root + side + slope * 1.5j, _WHITE, 0.03)


def _dog(rng: np.random.Generator, pen: _Pen, turn: float) -> None:
    """Draw hanging ears, a narrow face, round eyes, a long muzzle and a big nose."""
    wide, long, lean, thick = rng.uniform((0.84, 0.5, -0.1, 0.24), (0.98, 0.78, 0.4, 0.34)).tolist()
    pen.oval(-0.05j, wide, 0.95, pen.fur, pen.line)
    for side in (-1, 1):
        root = side * (wide - 0.06 + lean * 0.45) + (long - 0.72) * 1j
        pen.oval(root, thick, long, pen.ears, pen.line, tilt=-side * lean)
        eye = turn + side * 0.37 - 0.3j
        pen.oval(eye, 0.14, 0.15, _GREEN, pen.line)
        pen.oval(eye, 0.1, 0.11, _INK)
    nose = turn * 1.7 + rng.uniform(0.16, 0.28) * 1j
    pen.oval(nose + 0.24j, rng.uniform(0.4, 0.52), rng.uniform(0.46, 0.58), pen.light, pen.line)
    pen.line_to(nose, nose + 0.44j, pen.line)
    pen.oval(nose, rng.uniform(0.22, 0.28), 0.18, _INK)


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return soft lights, or stripes, over a gradient, in muted colors."""
    corners = np.array([[_color(rng, 0.45, 0.85) for _ in range(2)] for _ in range(2)], np.uint8)
    canvas = Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)
    pen, step, slant = ImageDraw.Draw(canvas), int(rng.integers(28, 80)), int(rng.integers(-1, 2)) * height
    if rng.random() < 0.5:
        for x, y, size in rng.uniform(0, 1, (8, 3)).tolist():
            pen.circle((x * width, y * height), 16 + 60 * size, _color(rng, 0.5, 0.95))
        return canvas.reduce(8).resize((width, height), Image.Resampling.BILINEAR)
    ink = _color(rng, 0.45, 0.85)
    for left in range(-height, width + height, step):
        pen.line([(left, 0), (left + slant, height)], fill=ink, width=step // 3)
    return canvas


def _photographed(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Add the effects of a camera: blur, uneven light, exposure, noise."""
    if rng.random() < 0.35:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2)))
    bright, slope, shift, noise = rng.uniform((0.78, -0.2, -12, 1.5), (1.16, 0.2, 12, 9)).astype(np.float32)
    light = bright + slope * np.linspace(-1, 1, picture.width, dtype=np.float32)[:, None]
    # The same noise in all three channels is as good as three planes of it, and quicker.
    grain = noise * rng.standard_normal((picture.height, picture.width, 1), np.float32)
    pixels = np.asarray(picture) * light + (grain + shift)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _color(rng: np.random.Generator, saturation: float, value: float) -> Color:
    """Return a random color: any hue, a saturation up to the given one, about the given value."""
    hue, s, v = rng.uniform(0, 1, 3).tolist()
    rgb = colorsys.hsv_to_rgb(hue, saturation * (0.3 + 0.7 * s), value * (0.7 + 0.4 * v))
    return _shaded(rgb, 255)


def _shaded(color: Sequence[float], factor: float) -> Color:
    return tuple(min(255, int(c * factor)) for c in color)
