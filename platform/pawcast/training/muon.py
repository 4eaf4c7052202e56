"""Muon for convolutions: update steps whose singular values are all about one."""

from __future__ import annotations

from typing import Any

from pawcast.models.build import HEAD
from pawcast.runtime.devices import Precision
from pawcast.runtime.tensorflow import keras

_COLOR_CHANNELS = 3


class ConvolutionMuon(keras.optimizers.Muon):
    """Keras's Muon, extended to kernels of convolutions: [h, w, in, out] is taken as [h·w·in, out].

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024,
    https://kellerjordan.github.io/posts/muon/). As there, AdamW moves the first layer, the head and
    everything that is not a matrix. The step has the size of AdamW's (J. Liu et al., 2025,
    https://arxiv.org/abs/2502.16982).

    Args:
        learning_rate: Of both Muon and AdamW.
        dtype: Precision of the matrix products. The paper uses bfloat16 too: the iteration
            tolerates its rounding.
        momentum: Of Muon.
        decay: Weight decay of both.
    """

    def __init__(self, learning_rate: float, dtype: Precision, *, momentum: float, decay: float) -> None:
        super().__init__(learning_rate, momentum=momentum, weight_decay=decay, adam_weight_decay=decay)
        self._dtype = dtype

    def _should_use_adamw(self, variable: Any) -> bool:
        hidden = len(variable.shape) in (2, 4) and variable.shape[-2] != _COLOR_CHANNELS
        return not hidden or HEAD in variable.path

    def lr_adjust(self, x: Any) -> Any:
        """Return the step as it is: `zeropower_via_newtonschulz5` has scaled it."""
        return x

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Return the nearest orthogonal matrix, scaled to a root mean square of `rms_rate`."""
        matrix = keras.ops.reshape(x, (-1, x.shape[-1]))
        scale = self.rms_rate * max(matrix.shape) ** 0.5
        orthogonal = super().zeropower_via_newtonschulz5(keras.ops.cast(matrix, self._dtype), steps)
        return keras.ops.reshape(keras.ops.cast(orthogonal, x.dtype), x.shape) * scale
