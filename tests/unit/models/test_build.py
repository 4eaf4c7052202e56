"""The networks' shapes and sizes."""

from __future__ import annotations

import numpy as np

from tests.support.training import network_and_optimizer


def test_networks_have_the_documented_shape():
    article, _ = network_and_optimizer("article")
    assert article.count_params() == 3_453_121
    assert [type(layer).__name__ for layer in article.layers].count("Conv2D") == 4
    model, _ = network_and_optimizer("smoke")
    out = np.asarray(model(np.random.default_rng(0).random((3, 64, 64, 3), np.float32)))
    assert out.shape == (3, 1)
    assert ((out > 0) & (out < 1)).all()


def test_depth_adds_residual_pairs_to_each_stage():
    shallow, deep = (network_and_optimizer("fast", f"depth={depth}")[0] for depth in (1, 3))
    sums = [sum(type(layer).__name__ == "Add" for layer in network.layers) for network in (shallow, deep)]
    assert sums == [4, 12]
    # At least two more pairs of 3x3 convolutions in each stage.
    assert deep.count_params() - shallow.count_params() > 2 * 2 * 9 * sum(n * n for n in (32, 64, 128, 256))
