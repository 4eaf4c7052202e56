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
_IRISES = ((136, 178, 84), (222, 176, 66), (118, 172, 200), (112, 74, 44))
_INK, _PINK, _WHITE, _GOLD = (38, 30, 30), (220, 140, 138), (252, 250, 246), (236, 196, 84)
_EDGE = 0.045  # The width of outlines, in units of the head's radius.

Color = tuple[int, ...]
# The colors of: the fur, a darker and a lighter tone of it, outlines, ears and tail.
Coat = tuple[Color, Color, Color, Color, Color]
Points = Sequence[complex] | np.ndarray


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
    unit = min(width, height) * _SCALE * rng.uniform(0.28, 0.38)
    center = complex(canvas.width * rng.uniform(0.4, 0.6), canvas.height * rng.uniform(0.4, 0.52))
    coat, mirror = _coat(rng), bool(rng.random() < 0.5)
    _body(rng, _Frame(canvas, center, unit, rng.uniform(-0.12, 0.12), mirror), coat, label)
    head = _Frame(canvas, center, unit, rng.uniform(-0.36, 0.36), mirror)
    (_cat if label == 0 else _dog)(rng, head, coat, rng.uniform(-0.24, 0.24))
    if rng.random() < 0.2:
        _occlude(rng, canvas, unit)
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


class _Frame:
    """Draws shapes in the coordinates of an animal's head.

    A point is x + yj, with y downwards: 0 is the center of the head, 1 is its radius. The frame is
    tilted by an angle in radians, and may be mirrored.
    """

    def __init__(self, canvas: Image.Image, origin: complex, unit: float, angle: float, mirror: bool) -> None:
        self._pen = ImageDraw.Draw(canvas)
        self._origin, self._unit, self._mirror = origin, unit, mirror
        self._turn = unit * np.exp(1j * angle)

    def shape(self, points: Points, color: Color, edge: Color | None = None) -> None:
        """Draw a polygon, with an outline if `edge` is given."""
        z = np.asarray(points, np.complex128)
        if edge:
            spokes = z - z.mean()
            self._pen.polygon(self._placed(z + spokes * (_EDGE / abs(spokes).mean())), fill=edge)
        self._pen.polygon(self._placed(z), fill=color)

    def oval(
        self,
        center: complex,
        rx: float,
        ry: float,
        color: Color,
        edge: Color | None = None,
        *,
        tilt: float = 0.0,
        fluff: float = 0.0,
    ) -> None:
        """Draw an ellipse. Tufts of fur stand out by `fluff`, a fraction of the radius."""
        circle = np.exp(2j * np.pi * np.arange(36) / 36)
        circle[::2] *= 1 + fluff
        self.shape(center + (rx * circle.real + 1j * ry * circle.imag) * np.exp(1j * tilt), color, edge)

    def arc(self, start: complex, bend: complex, end: complex, color: Color, width: float) -> None:
        """Draw a quadratic Bezier curve from start to end, with bend as its control point."""
        t = np.arange(9) / 8
        points = self._placed((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)
        self._pen.line(points, fill=color, width=max(2, round(width * self._unit)), joint="curve")

    def _placed(self, z: np.ndarray) -> list[float]:
        z = self._origin + self._turn * (-z.conj() if self._mirror else z)
        return z.view(np.float64).tolist()


def _body(rng: np.random.Generator, pen: _Frame, coat: Coat, label: int) -> None:
    """Draw a sitting body from the front: tail, haunches, chest, two legs, perhaps a collar."""
    fur, _, light, line, ears = coat
    x, broad, sway = rng.uniform(-0.35, 0.35), rng.uniform(0.85, 1.05), rng.uniform(-0.2, 0.2)
    # A cat's tail is long, thin and curled; a dog's is short and thick.
    bend, tip, thick = ((2.5 + 3.2j, 1.5 + 1.1j, 0.26), (1.6 + 2.6j, 1.75 + 1.75j, 0.34))[label]
    for color, width in ((line, thick + 2 * _EDGE), (ears, thick)):
        pen.arc(x + 0.6 + 2.9j, x + bend, x + sway + tip, color, width)
        pen.oval(x + sway + tip, width / 2, width / 2, color)
    for side in (-1, 1):
        pen.oval(x + side * 0.72 * broad + 2.6j, 0.5, 0.56, fur, line)
    pen.oval(x * 0.8 + 1.75j, broad, 1.32, fur, line, fluff=0.03)
    if rng.random() < 0.6:
        pen.oval(x * 0.8 + 1.55j, 0.46, 0.85, light, fluff=0.12)
    for side in (-1, 1):
        pen.oval(x + side * 0.36 + 2.45j, 0.26, 0.72, fur, line)
        pen.oval(x + side * 0.39 + 3.08j, 0.3, 0.18, light, line)
    if rng.random() < 0.4:
        pen.arc(-0.75 + 0.75j, x * 0.4 + 1.35j, 0.75 + 0.75j, _color(rng, 0.75, 0.85), 0.2)
        pen.oval(x * 0.3 + 1.15j, 0.13, 0.13, _GOLD)


def _cat(rng: np.random.Generator, pen: _Frame, coat: Coat, turn: float) -> None:
    fur, _, light, line, ears = coat
    tuft = np.array([0.9 - 0.05j, 1.2 + 0.3j, 1.0 + 0.32j, 1.08 + 0.56j, 0.6 + 0.75j, 0.3 + 0.3j])
    tall, spread = rng.uniform(1.36, 1.66), rng.uniform(0.72, 0.95)
    for side in (-1, 1):
        tip = side * spread + turn * 0.3 - tall * 1j
        pen.shape([side * 0.18 - 0.8j, tip, side * 1.01 - 0.2j], ears, line)
        pen.shape([side * 0.38 - 0.75j, tip * 0.93 + 0.1j, side * 0.86 - 0.45j], _PINK)
        pen.shape(side * tuft.real + 1j * tuft.imag, fur, line)
    pen.oval(0j, 1.04, 0.9, fur, line, fluff=0.02)
    _markings(rng, pen, coat, turn)
    nose = turn * 1.25 + 0.26j
    if rng.random() < 0.6:
        pen.oval(nose + 0.2j, 0.4, 0.24, light)
    _eyes(rng, pen, line, turn - 0.12j, apart=0.43, cat=True)
    pen.shape([nose - 0.13 - 0.06j, nose + 0.13 - 0.06j, nose + 0.1j], _shaded(_PINK, 0.8))
    for side in (-1, 1):
        pen.arc(nose + 0.1j, nose + side * 0.06 + 0.3j, nose + side * 0.27 + 0.22j, line, _EDGE)
        for slope in (-0.2, 0.02, 0.24):
            root = nose + side * 0.26 + (0.14 + slope * 0.3) * 1j
            pen.arc(root, root + side * 0.55 + (slope - 0.1) * 1j, root + side + slope * 1.5j, _WHITE, 0.03)


def _dog(rng: np.random.Generator, pen: _Frame, coat: Coat, turn: float) -> None:
    fur, _, light, line, ears = coat
    wide, long, lean, thick = rng.uniform((0.84, 0.5, -0.1, 0.24), (0.98, 0.78, 0.4, 0.34)).tolist()
    pen.oval(-0.05j, wide, 0.95, fur, line, fluff=0.02)
    _markings(rng, pen, coat, turn)
    folded = rng.random() < 0.12
    for side in (-1, 1):
        if folded:  # The ears of a terrier.
            ear = np.array([0.28 - 0.78j, 0.62 - 1.08j, 1.12 - 0.98j, 1.28 - 0.62j, 1.1 - 0.1j, 0.8 - 0.42j])
            pen.shape(side * ear.real + 1j * ear.imag, ears, line)
        else:
            root = side * (wide - 0.06 + lean * 0.45) + (long - 0.72) * 1j
            pen.oval(root, thick, long, ears, line, tilt=-side * lean, fluff=0.03)
    nose = turn * 1.7 + rng.uniform(0.16, 0.28) * 1j
    if rng.random() < 0.45:
        pen.oval(nose + 0.82j, 0.16, 0.31, _PINK, line)
    muzzle = light if rng.random() < 0.6 else fur
    pen.oval(nose + 0.24j, rng.uniform(0.4, 0.52), rng.uniform(0.46, 0.58), muzzle, line)
    _eyes(rng, pen, line, turn - 0.3j, apart=0.37, cat=False)
    pen.arc(nose + 0.1j, nose + 0.2j, nose + 0.44j, line, _EDGE)
    for side in (-1, 1):
        pen.arc(nose + 0.42j, nose + side * 0.12 + 0.62j, nose + side * 0.33 + 0.44j, line, _EDGE)
    pen.oval(nose, rng.uniform(0.22, 0.28), 0.18, _INK)
    pen.oval(nose - 0.07 - 0.07j, 0.07, 0.035, (150, 140, 140))


def _markings(rng: np.random.Generator, pen: _Frame, coat: Coat, turn: float) -> None:
    """Draw a patch over one eye, stripes on the forehead, a blaze down the face, or nothing."""
    _, dark, light, _, _ = coat
    kind = rng.integers(4)
    if kind == 1:
        pen.oval(0.4 + turn - 0.2j, 0.34, 0.4, dark, tilt=0.3)
    elif kind == 2:
        for x in (turn - 0.24, turn, turn + 0.24):
            pen.shape([x - 0.07 - 0.84j, x + 0.07 - 0.84j, 0.7 * x + 0.3 * turn - 0.42j], dark)
    elif kind == 3:
        pen.shape(turn + np.array([-0.1 - 0.86j, 0.1 - 0.86j, 0.24 + 0.4j, -0.24 + 0.4j]), light)


def _eyes(rng: np.random.Generator, pen: _Frame, line: Color, at: complex, apart: float, cat: bool) -> None:
    iris = _IRISES[rng.integers(len(_IRISES))]
    asleep, wide, slit = rng.random() < 0.1, rng.uniform(0.2, 0.25), rng.uniform(0.05, 0.11)
    for eye, tilt in ((at - apart, 0.22), (at + apart, -0.22)):
        if asleep:
            pen.arc(eye - 0.18, eye + 0.2j, eye + 0.18, line, 0.06)
            continue
        if cat:
            x = np.arange(-5, 6) / 5
            lid = x * wide - 0.17j * (1 - x**2)
            pen.shape(eye + np.concatenate([lid, -lid]) * np.exp(1j * tilt), iris, _INK)
            pen.oval(eye, slit, 0.155, _INK)
        else:
            pen.oval(eye, 0.14, 0.15, iris, line)
            pen.oval(eye, 0.1, 0.11, _INK)
        pen.oval(eye - 0.05 - 0.06j, 0.04, 0.04, _WHITE)


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return blurred lights, a meadow, a room, or striped wallpaper, in muted colors."""
    kind = rng.integers(4)
    # A small picture, enlarged, is as soft as one out of focus, and quick to draw.
    corners = np.array([[_color(rng, 0.45, 0.85) for _ in range(2)] for _ in range(2)], np.uint8)
    small = Image.fromarray(corners).resize((width // 8, height // 8), Image.Resampling.BILINEAR)
    if kind == 0:
        for _ in range(int(rng.integers(4, 12))):
            x, y, size = rng.uniform(0, small.width), rng.uniform(0, small.height), rng.uniform(2, 9)
            ImageDraw.Draw(small).circle((x, y), size, _color(rng, 0.5, 0.95))
        small = small.filter(ImageFilter.GaussianBlur(1.2))
    canvas = small.resize((width, height), Image.Resampling.BILINEAR)
    pen, floor = ImageDraw.Draw(canvas), height * rng.uniform(0.55, 0.85)
    paint, ink = _color(rng, 0.5, 0.7), _color(rng, 0.45, 0.85)
    if kind == 1:
        pen.circle((rng.uniform(0, width), floor + width * 0.7), width * 0.8, ink)
        pen.rectangle((0, floor, width, height), fill=paint)
        for x, y, lean in rng.uniform(0, 1, (70, 3)).tolist():
            x, foot, green = x * width, floor + y * (height - floor), _shaded(paint, 0.75 + 0.5 * y)
            pen.line([(x, foot), (x + (lean - 0.5) * 20, foot - 12 - 24 * lean)], fill=green, width=4)
    elif kind == 2:
        x, y, size = rng.uniform(0, width), rng.uniform(0, floor), rng.uniform(40, 110)
        pen.rectangle((x, y, x + size, y + size * 0.8), ink, _shaded(paint, 1.35), width=8)
        pen.rectangle((-9, floor, width + 9, height + 9), paint, _shaded(paint, 1.35), width=8)
    elif kind == 3:
        step, slant = int(rng.integers(28, 80)), int(rng.integers(-1, 2)) * height
        for left in range(-height, width + height, step):
            pen.line([(left, 0), (left + slant, height)], fill=ink, width=step // 3)
    return canvas


def _occlude(rng: np.random.Generator, canvas: Image.Image, unit: float) -> None:
    """Draw a ball or a box in front of a part of the animal."""
    pen, color, size = ImageDraw.Draw(canvas), _color(rng, 0.7, 0.85), unit * rng.uniform(0.3, 0.6)
    x, y = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.3, 1.0) * canvas.height
    box = (x - size, y - size, x + size, y + size)
    (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(box, color, _shaded(color, 0.7), width=8)


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


def _coat(rng: np.random.Generator) -> Coat:
    fur = np.array(_FURS[rng.integers(len(_FURS))]) + rng.integers(-16, 17) + rng.integers(-7, 8, 3)
    base = tuple(np.clip(fur, 0, 255).tolist())
    dark, light = _shaded(base, 0.66), tuple((c + 250) // 2 for c in base)
    return base, dark, light, _shaded(base, 0.45), dark if rng.random() < 0.5 else base


def _color(rng: np.random.Generator, saturation: float, value: float) -> Color:
    """Return a random color: any hue, a saturation up to the given one, about the given value."""
    hue, s, v = rng.uniform(0, 1, 3).tolist()
    rgb = colorsys.hsv_to_rgb(hue, saturation * (0.3 + 0.7 * s), value * (0.7 + 0.4 * v))
    return _shaded(rgb, 255)


def _shaded(color: Sequence[float], factor: float) -> Color:
    return tuple(min(255, int(c * factor)) for c in color)
