import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from nets import filled

from converters.stripping import plain
from tfqrl.compress import Pruning

Dense = keras.layers.Dense


def pruned(options: Pruning, *progress: float) -> keras.Sequential:
    """A network that was told of these parts of a training, as it is deployed."""
    hidden = [Dense(n, "relu", name=f"hidden_{i}") for i, n in enumerate((32, 24))]
    network = filled(keras.Sequential([keras.Input((12,)), *hidden, Dense(4, name="output")], name="policy"))
    wrapped = options.wrap(network, "choices")
    for part in progress:
        options.advance(wrapped, tf.zeros((1, 12)), part)
    return plain(wrapped)


def zeros(network: keras.Sequential) -> list[float]:
    return [float((layer.kernel.numpy() == 0).mean()) for layer in network.layers]


def test_sparsity_rises_between_begin_and_end() -> None:
    options = Pruning(sparsity=0.75, prune_begin=0.2, prune_end=0.6)
    assert zeros(pruned(options, 0.1)) == [0, 0, 0]
    # Cubic, half of the way: 0.75 * (1 - 0.5 ** 3).
    assert zeros(pruned(options, 0.1, 0.4)) == pytest.approx([0.65625] * 3, abs=0.01)
    assert zeros(pruned(options, 0.1, 0.4, 0.9)) == pytest.approx([0.75] * 3, abs=0.01)


def test_the_smallest_weights_go_at_once_if_asked() -> None:
    options = Pruning(sparsity=0.5, prune_schedule="constant", prune_begin=0.2, prune_end=0.6)
    before, after = pruned(options, 0.1), pruned(options, 0.1, 0.3)
    for old, new in zip(before.layers, after.layers):
        kernel, kept = np.abs(old.kernel.numpy()), new.kernel.numpy() != 0
        assert kept.mean() == pytest.approx(0.5, abs=0.01)
        assert kernel[~kept].max() <= kernel[kept].min()


def test_single_layers_have_sparsities_of_their_own() -> None:
    found = zeros(pruned(Pruning(sparsity=0.9, layer_sparsity={"output": 0.25}), 0.5, 1.0))
    assert found == pytest.approx([0.9, 0.9, 0.25], abs=0.01)


def test_a_pattern_is_kept_within_neighbouring_weights() -> None:
    for layer in pruned(Pruning(pattern=(2, 4)), 0.0, 0.5, 1.0).layers:
        kernel = layer.kernel.numpy()
        # TF-MOT's neighbours are the inputs of an output, as they lie in TFLite's kernels.
        assert ((kernel.T.reshape(-1, 4) == 0).sum(axis=1) == 2).all()
