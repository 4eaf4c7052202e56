"""What a recipe is: every number that a run depends on, in one frozen, validated, saved object."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pawcast.core.records import Record


class Augmentation(Record):
    """Ranges of what is done to each training photo: one random warp, then its colours, then a hole.

    The first six are those of Keras's `ImageDataGenerator`. Shear is in degrees: recipes of the article's time
    write 0.1, meant as radians, which is 5.7 degrees; today's Keras reads it as a tenth of a degree, which is no
    shear at all.
    """

    rotation: float = Field(default=0.0, ge=0, le=180, description="degrees, drawn from ±rotation")
    width_shift: float = Field(default=0.0, ge=0, lt=1, description="fraction of the width, ±")
    height_shift: float = Field(default=0.0, ge=0, lt=1, description="fraction of the height, ±")
    shear: float = Field(default=0.0, ge=0, lt=90, description="degrees, ±")
    zoom: float = Field(default=0.0, ge=0, lt=1, description="each axis is scaled by 1 ± zoom")
    horizontal_flip: bool = Field(default=False, description="mirror half of the photos")
    crop_area: float = Field(default=1.0, gt=0, le=1, description="the smallest part of the area that a crop keeps")
    crop_aspect: float = Field(default=1.0, ge=1, le=4, description="a crop's sides are up to this ratio apart")
    brightness: float = Field(default=0.0, ge=0, lt=1, description="added to all channels, ±")
    contrast: float = Field(default=0.0, ge=0, lt=1, description="distance from middle grey, times 1 ± contrast")
    saturation: float = Field(default=0.0, ge=0, le=1, description="distance from the pixel's grey, times 1 ± it")
    cutout: float = Field(default=0.0, ge=0, lt=1, description="side of a grey square, fraction of the photo's")


class Recipe(Record):
    """One complete training configuration. Saved with the run and with the model, and shown at the start."""

    name: str
    model: str = Field(default="article", description="a network of `models`, or package.module:function")
    image_size: int = Field(default=150, ge=32, le=1024, description="height and width in pixels, as served")
    eval_downscale: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="photos to be judged are first reduced to this many pixels a side: "
        "no sharper than the crops that training enlarges, however large they are",
    )
    train_sizes: tuple[tuple[float, int], ...] = Field(
        default=(), description="pairs of (until, pixels): smaller photos until that share of the epochs is over"
    )
    mirror: bool = Field(default=False, description="a prediction is the mean of the photo's and its mirror image's")
    dropout: float = Field(default=0.5, ge=0, lt=1)
    width: float = Field(default=1.0, gt=0, le=8, description="channels of the residual network, times this")
    depth: int = Field(default=1, ge=1, le=16, description="residual pairs in each stage of the residual network")
    pretrained: str | None = Field(default=None, description="weights to begin with: a file, a URI, or a package")
    frozen_epochs: int = Field(default=0, ge=0, description="epochs that train only what comes after the backbone")
    fine_tune_from: str | None = Field(
        default=None, description="the first layer of the backbone that ever moves; those before keep their weights"
    )
    frozen_learning_rate: float = Field(default=1e-3, gt=0, description="the constant rate of those epochs")
    augment: Augmentation = Augmentation()
    optimizer: Literal["rmsprop", "sgd", "adamw", "muon"] = "rmsprop"
    learning_rate: float = Field(default=1e-3, gt=0, description="its peak")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="of RMSprop's steps; Nesterov's of SGD and Muon")
    weight_decay: float = Field(default=0.0, ge=0, lt=1, description="decoupled; kernels only")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="training's targets, this much nearer to ½")
    schedule: Literal["constant", "cosine", "linear"] = Field(default="constant", description="cosine, linear: to 0")
    warmup_epochs: float = Field(default=0.0, ge=0, description="epochs of linear rise to the peak")
    epochs: int = Field(default=10, ge=1, le=10_000)
    patience: int = Field(default=0, ge=0, description="stop after so many epochs without a better one; 0: never")
    validate_every: int = Field(
        default=1, ge=1, description="validate after every so many epochs, and always after the last one"
    )
    batch_size: int = Field(default=128, ge=1, le=65_536, description="global, over all workers")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the network's arithmetic; auto: bfloat16 where the hardware is faster in it"
    )
    deterministic: bool = Field(default=False, description="the same seed gives the same weights, bit for bit")
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _sizes_follow_each_other(self) -> Self:
        shares = [share for share, _ in self.train_sizes]
        if self.train_sizes and (shares != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1):
            raise ValueError(f"train_sizes: shares must rise from above 0 to 1, not {shares}")
        if any(not 32 <= size <= 1024 for _, size in self.train_sizes):
            raise ValueError("train_sizes: 32 to 1024 pixels")
        if self.eval_downscale and self.eval_downscale > self.image_size:
            raise ValueError(f"eval_downscale ({self.eval_downscale}) must be at most image_size ({self.image_size})")
        if self.frozen_epochs >= self.epochs:
            raise ValueError(f"frozen_epochs ({self.frozen_epochs}) must be fewer than epochs ({self.epochs})")
        return self

    def size_at(self, epoch: int) -> int:
        """Height and width of the network's photos in an epoch, counted from 0."""
        return next((size for share, size in self.train_sizes if epoch < share * self.epochs), self.image_size)

    def validates_after(self, epoch: int) -> bool:
        """Whether the network is validated after an epoch, counted from 0."""
        return (epoch + 1) % self.validate_every == 0 or epoch + 1 == self.epochs

    @property
    def decode_size(self) -> int:
        """Height and width at which training's photos are decoded: the largest that any epoch needs."""
        return max([self.image_size, *(size for _, size in self.train_sizes)])

    @property
    def eval_size(self) -> int:
        """Height and width at which validation's photos are decoded: like those that are served, as sharp as these."""
        return self.eval_downscale or self.decode_size
