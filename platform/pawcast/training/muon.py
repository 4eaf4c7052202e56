"""Muon for convolutions: steps whose singular values are all about one, so that no direction is neglected."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pawcast.models.build import HEAD
from pawcast.runtime.devices import Precision

_COLOURS = 3


class ConvolutionMuon(keras.optimizers.Muon):
    """Keras's Muon, which knows matrices only, for kernels of convolutions too: [h, w, in, out] as [h·w·in, out].

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024,
    https://kellerjordan.github.io/posts/muon/). As there, the first layer, the head, and everything that is no matrix
    are moved by AdamW. The step has the size of AdamW's (J. Liu et al., 2025, https://arxiv.org/abs/2502.16982).

    Args:
        dtype: In which the matrices are multiplied. There too it is bfloat16: the iteration forgives its rounding.
        options: Those of `keras.optimizers.Muon`.
    """

    def __init__(self, *, dtype: Precision, **options: Any) -> None:
        super().__init__(**options)
        self._dtype = dtype

    def _should_use_adamw(self, variable: Any) -> bool:
        hidden = len(variable.shape) in (2, 4) and variable.shape[-2] != _COLOURS
        return not hidden or HEAD in variable.path

    def lr_adjust(self, x: Any) -> Any:
        """The size of the step is already right."""
        return x

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Return the nearest matrix with singular values of one, scaled to a root mean square of `rms_rate`."""
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        scale = self.rms_rate * max(matrix.shape) ** 0.5
        near = super().zeropower_via_newtonschulz5(ops.cast(matrix, self._dtype), steps)
        return ops.reshape(ops.cast(near, x.dtype), x.shape) * scale
