"""What is counted of compressed networks, on networks whose weights are known."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
import toy_envs  # noqa: F401  (registers the toys)
from training import trained

from converters.emulation import calibrate
from tfqrl import cli
from tfqrl.agents.td3 import TD3Config
from tfqrl.compress import QABP, QAT, SVD, Clustering, SparseQAT
from tfqrl.compress.report import LayerReport, report, total

Dense = keras.layers.Dense


def network() -> keras.Sequential:
    """Kernels of 2 x 4 and 4 x 2; of the second neuron nothing is read."""
    made = keras.Sequential([keras.Input((2,)), Dense(4, "relu", name="hidden_0"), Dense(2, name="output")])
    first = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]) / 8
    last = np.array([[1, 2], [0, 0], [3, 4], [0, 5]]) / 4
    made.set_weights([np.float32(array) for array in (first, np.ones(4), last, np.zeros(2))])
    return made


def counts(layer: LayerReport) -> tuple[int, int, int, int]:
    return layer.left, layer.total_bits, layer.max_bits, layer.macs


def test_of_floats_those_that_are_not_zero_have_32_bits() -> None:
    # As different from each other as floats are, so that nobody takes them for few values.
    made = keras.Sequential([keras.Input((40,)), Dense(20, name="output")])
    kernel = np.random.default_rng(0).normal(size=(40, 20)).astype(np.float32)
    kernel[:10] = 0
    made.set_weights([kernel, np.zeros(20, np.float32)])
    (layer,) = report(made)
    assert counts(layer) == (600, 600 * 32, 32, 800)
    share = np.array([0.25, 0.75])
    assert layer.entropy_bits == pytest.approx(600 * 32 - 800 * (share * np.log2(share)).sum())
    assert layer.log_alpha is None


def test_a_small_kernel_of_floats_is_not_coded_by_an_index_whose_table_costs_nothing() -> None:
    made = keras.Sequential([keras.Input((3,)), Dense(64, name="output")])
    kernel = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    made.set_weights([kernel, np.zeros(64, np.float32)])
    (layer,) = report(made)
    assert (layer.entropy_bits, layer.total_bits) == (192 * 32, 192 * 32)


def test_dead_neurons_cost_no_multiplications() -> None:
    first, last = report(network())
    assert (first.macs, last.macs) == (2 * 3, 3 * 2)
    assert (first.biases, last.biases) == (3, 2)
    whole = total((first, last))
    assert (whole.weights, whole.left, whole.macs) == (16, 13, 12)


def test_on_a_grid_each_weight_has_its_bits_but_for_those_that_a_mask_took() -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(50, 2)), tf.float32)
    wrapped = QAT(weight_bits=3).wrap(network(), "choices")
    calibrate(wrapped, x)
    first, last = report(wrapped)
    assert (first.left, first.total_bits, first.max_bits) == (8, 24, 3)
    assert (last.left, last.total_bits) == (8, 24)
    masked = SparseQAT(sparsity=0.5, weight_bits=3, prune_begin=0.0, prune_end=0.2, delay=0.3).wrap(
        network(), "choices"
    )
    options = SparseQAT(sparsity=0.5, weight_bits=3, prune_begin=0.0, prune_end=0.2, delay=0.3)
    for progress in (0.1, 0.2, 0.4):
        options.advance(masked, x, progress, 100)
    assert [(layer.left, layer.total_bits) for layer in report(masked)] == [(4, 12), (4, 12)]


def test_clusters_have_the_bits_of_an_index() -> None:
    wrapped = Clustering(clusters=2, delay=0.0).wrap(network(), "choices")
    Clustering(clusters=2, delay=0.0).advance(wrapped, tf.zeros((1, 2)), 0.5, 100)
    for layer in report(wrapped):
        assert layer.max_bits == 1
        assert layer.entropy_bits <= 8


def test_of_bayesian_policies_noise_is_counted() -> None:
    wrapped = QABP(max_bits=4).wrap(network(), "choices")
    noisy = wrapped.layers[1].layer
    noisy.begin()
    theta = noisy.theta.numpy()
    # alpha of 1.1, 0.5, 0.1, 0.03 in the columns: 0, 1, 2 and 3 bits. A 1-bit grid has three levels, which take 2.
    noisy.set_log_variance(np.log(theta**2) + np.log([1.1, 0.5, 0.1, 0.03]))
    first, _ = report(wrapped)
    assert (first.left, first.total_bits, first.max_bits) == (6, 14, 3)
    assert first.mean_bits == pytest.approx(14 / 6)
    assert first.log_alpha is not None
    assert sum(first.log_alpha) == 8
    edges = [math.floor(math.log(alpha)) + 8 for alpha in (1.1, 0.5, 0.1, 0.03)]
    assert [first.log_alpha[i] for i in edges] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    "compress", [SVD(kl_weight=1e5, kl_begin=0.0, kl_end=0.01), QABP(kl_weight=1e5, kl_begin=0.0, kl_end=0.01)]
)
def test_a_run_is_shown_layer_by_layer(compress: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TD3Config(
        env="toys/Match-v0", steps=300, seed=1, learning_starts=100, batch_size=32, hidden=(24, 16), compress=compress
    )
    run = trained(tmp_path / "run", config)
    path = tmp_path / "weights.json"
    assert cli.main(["inspect", str(run.path), "--json", str(path)]) == 0
    plain = json.loads(path.read_text())
    assert [layer["layer"] for layer in plain["layers"]] == ["hidden_0", "hidden_1", "output"]
    left = plain["total"]["left"] / (24 + 24 * 16 + 16)
    assert 1 - left == pytest.approx(run.metrics()[-1]["sparsity"])
    text = capsys.readouterr().out
    assert f"{left:.1%} of the weights are left" in text
    assert "log alpha" in text
