"""Optimizers: which weights decay, and the steps of Muon."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.training import network_and_optimizer


def test_only_kernels_decay():
    network, optimizer = network_and_optimizer(
        "article", "optimizer=sgd", "weight_decay=0.1", "model=residual", "image_size=32"
    )
    before = [np.asarray(v) for v in network.trainable_variables]
    optimizer.learning_rate.assign(0.5)
    optimizer.apply([np.zeros(v.shape, np.float32) for v in network.trainable_variables], network.trainable_variables)
    for variable, old in zip(network.trainable_variables, before, strict=True):
        factor = 0.95 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(np.asarray(variable), old * factor, rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_muon_steps_are_orthogonal_and_adamw_moves_the_rest(precision):
    network, optimizer = network_and_optimizer(
        "article", "optimizer=muon", "momentum=0.95", "model=residual", "image_size=32", f"precision={precision}"
    )
    before = [np.asarray(v) for v in network.trainable_variables]
    random = np.random.default_rng(0)
    optimizer.learning_rate.assign(0.1)
    gradients = [random.normal(size=v.shape).astype(np.float32) for v in network.trainable_variables]
    optimizer.apply(gradients, network.trainable_variables)
    orthogonal = 0
    for variable, old, gradient in zip(network.trainable_variables, before, gradients, strict=True):
        step = (old - np.asarray(variable)) / 0.1
        if variable.ndim in (2, 4) and variable.shape[-2] != 3 and "head" not in variable.path:
            matrix = step.reshape(-1, step.shape[-1])
            values = np.linalg.svd(matrix / (0.2 * max(matrix.shape) ** 0.5), compute_uv=False)
            # Five iterations bring the singular values near one, not onto it.
            assert 0.5 < values.min() <= values.max() < 1.3, variable.path
            orthogonal += 1
        else:
            # AdamW's first step is the sign of the gradient.
            np.testing.assert_allclose(step, np.sign(gradient), atol=0.1)
    assert orthogonal == 16
