"""The recipe: every number that a run depends on, in one frozen, validated record."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pawcast.core.records import Record


class Augmentation(Record):
    """Ranges of the random changes of a training photo: one warp, then colors, then a cutout.

    The first six are those of Keras's `ImageDataGenerator`. Shear is in degrees. Old recipes give
    shear in radians: their 0.1 is 5.7 degrees here.
    """

    rotation: float = Field(default=0.0, ge=0, le=180, description="degrees, to either side")
    width_shift: float = Field(default=0.0, ge=0, lt=1, description="fraction of the width, to either side")
    height_shift: float = Field(default=0.0, ge=0, lt=1, description="fraction of the height, up or down")
    shear: float = Field(default=0.0, ge=0, lt=90, description="degrees, to either side")
    zoom: float = Field(default=0.0, ge=0, lt=1, description="each axis is scaled by 1 ± zoom")
    horizontal_flip: bool = Field(default=False, description="mirror half of the photos")
    crop_area: float = Field(default=1.0, gt=0, le=1, description="smallest fraction of the area that a crop keeps")
    crop_aspect: float = Field(default=1.0, ge=1, le=4, description="largest ratio of a crop's longer to shorter side")
    brightness: float = Field(default=0.0, ge=0, lt=1, description="added to all channels, ±")
    contrast: float = Field(default=0.0, ge=0, lt=1, description="scales distances from middle gray by 1 ± contrast")
    saturation: float = Field(default=0.0, ge=0, le=1, description="scales distances from gray by 1 ± saturation")
    cutout: float = Field(default=0.0, ge=0, lt=1, description="side of a gray square, as a fraction of the photo's")


class Recipe(Record):
    """One complete training configuration. It is saved with the run and with the model."""

    name: str
    model: str = Field(default="article", description="a network of pawcast.models, or package.module:function")
    image_size: int = Field(default=150, ge=32, le=1024, description="height and width in pixels, for serving")
    eval_downscale: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="for validation and serving, photos are first reduced to this height and width in pixels, "
        "so that they are no sharper than the enlarged crops of training",
    )
    train_sizes: tuple[tuple[float, int], ...] = Field(
        default=(),
        description="pairs of (share, pixels): train with photos of this size until that share of the epochs is over",
    )
    mirror: bool = Field(default=False, description="average the predictions for a photo and its mirror image")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="share of features that are dropped in training")
    width: float = Field(default=1.0, gt=0, le=8, description="multiplies the channels of the residual network")
    depth: int = Field(default=1, ge=1, le=16, description="residual blocks in each stage of the residual network")
    pretrained: str | None = Field(
        default=None, description="weights to begin with: a file, a URI, or package:NAME/path"
    )
    frozen_epochs: int = Field(default=0, ge=0, description="first epochs, which train only the head")
    fine_tune_from: str | None = Field(
        default=None, description="first layer of the backbone that is trained; those before it keep their weights"
    )
    frozen_learning_rate: float = Field(default=1e-3, gt=0, description="constant rate of the frozen epochs")
    augment: Augmentation = Augmentation()
    optimizer: Literal["rmsprop", "sgd", "adamw", "muon"] = "rmsprop"
    learning_rate: float = Field(default=1e-3, gt=0, description="peak rate")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="of RMSprop; Nesterov's of SGD and Muon")
    weight_decay: float = Field(default=0.0, ge=0, lt=1, description="decoupled, of kernels only")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="moves training labels towards ½ by this share")
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="of photos in the training loss; balanced: inversely proportional to the photos of their class",
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="of the learning rate; cosine and linear fall to 0"
    )
    warmup_epochs: float = Field(default=0.0, ge=0, description="epochs in which the rate rises linearly to its peak")
    epochs: int = Field(default=10, ge=1, le=10_000)
    patience: int = Field(default=0, ge=0, description="stop after this many epochs without a better one; 0: never")
    validate_every: int = Field(
        default=1, ge=1, description="validate after every this many epochs, and always after the last one"
    )
    batch_size: int = Field(default=128, ge=1, le=65_536, description="photos in a step, over all workers")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the network's arithmetic; auto: bfloat16 where the hardware is faster in it"
    )
    deterministic: bool = Field(default=False, description="the same seed gives the same weights, bit for bit")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of weights, order, augmentation and dropout")

    @model_validator(mode="after")
    def _check_fields_together(self) -> Self:
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
        """Return height and width of the network's photos in an epoch, counted from 0."""
        return next((size for share, size in self.train_sizes if epoch < share * self.epochs), self.image_size)

    def validates_after(self, epoch: int) -> bool:
        """Return whether the network is validated after an epoch, counted from 0."""
        return (epoch + 1) % self.validate_every == 0 or epoch + 1 == self.epochs

    @property
    def decode_size(self) -> int:
        """Height and width at which training photos are decoded: the largest of any epoch."""
        return max([self.image_size, *(size for _, size in self.train_sizes)])

    @property
    def eval_size(self) -> int:
        """Height and width at which validation photos are decoded: as sharp as in serving."""
        return self.eval_downscale or self.decode_size
