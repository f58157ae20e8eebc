import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hypothesis import given
from hypothesis import strategies as st
from nets import filled

from converters.shrink import shrink
from converters.stripping import plain
from edge.errors import UsageError
from tfqrl.compress import Pruning
from tfqrl.compress.pruning import erdos_renyi, update_masks
from tfqrl.networks import nature_cnn

Dense = keras.layers.Dense


def pruned(options: Pruning, *progress: float) -> keras.Sequential:
    """A network that was told of these parts of a training, as it is deployed."""
    hidden = [Dense(n, "relu", name=f"hidden_{i}") for i, n in enumerate((32, 24))]
    network = filled(keras.Sequential([keras.Input((12,)), *hidden, Dense(4, name="output")], name="policy"))
    wrapped = options.wrap(network, "choices")
    for part in progress:
        options.advance(wrapped, tf.zeros((1, 12)), part, 0)
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


def test_small_kernels_lose_less_where_the_distribution_is_that_of_erdos_and_renyi() -> None:
    # Densities as 44 / 384, 56 / 768 and 28 / 96 of 1248 weights in all, by hand: the factor is 312 / 128.
    network = pruned(Pruning(sparsity=0.75, sparsity_distribution="erdos-renyi"), 0.5, 1.0)
    assert zeros(network) == pytest.approx([1 - 2.4375 * part for part in (44 / 384, 56 / 768, 28 / 96)], abs=0.01)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=5), st.floats(0.01, 0.99))
def test_densities_of_erdos_and_renyi_are_as_wished_together_and_at_most_1(
    shapes: list[tuple[int, int]], sparsity: float
) -> None:
    named = {str(i): shape for i, shape in enumerate(shapes)}
    found = erdos_renyi(named, sparsity)
    weights = {name: shape[0] * shape[1] for name, shape in named.items()}
    assert all(-1e-9 <= each < 1 for each in found.values())
    gone = sum(found[name] * weights[name] for name in named)
    assert gone == pytest.approx(sparsity * sum(weights.values()))
    partial = [(1 - found[n]) * weights[n] / sum(named[n]) for n in named if found[n] > 1e-9]
    assert np.ptp(partial) < 1e-6 * max(partial) if partial else True


def test_a_pattern_is_kept_within_neighbouring_weights() -> None:
    for layer in pruned(Pruning(pattern=(2, 4)), 0.0, 0.5, 1.0).layers:
        kernel = layer.kernel.numpy()
        # TF-MOT's neighbours are the inputs of an output, as they lie in TFLite's kernels.
        assert ((kernel.T.reshape(-1, 4) == 0).sum(axis=1) == 2).all()


def test_whole_neurons_go_the_weakest_first_and_the_converter_takes_them_out() -> None:
    options = Pruning(neurons=True, sparsity=0.75, layer_sparsity={"hidden_1": 0.5}, prune_schedule="constant")
    before, after = pruned(options, 0.0), pruned(options, 0.0, 0.5)
    for i, left in ((0, 8), (1, 12)):
        kernel, read = before.layers[i].kernel.numpy(), before.layers[i + 1].kernel.numpy()
        strength = np.linalg.norm(kernel, axis=0) * np.linalg.norm(read, axis=1)
        kept = after.layers[i].kernel.numpy().any(axis=0)
        assert kept.sum() == left
        assert strength[kept].min() >= strength[~kept].max()
    assert after.layers[2].kernel.numpy().all()
    smaller, summaries = shrink(after)
    assert [layer.units for layer in smaller.layers] == [8, 12, 4]
    assert [summary.units_after for summary in summaries] == [8, 12, 4]
    x = tf.random.stateless_normal((50, 12), (1, 2))
    np.testing.assert_allclose(smaller(x), after(x), atol=1e-5)


def test_more_neurons_go_as_training_goes_on_and_none_comes_back() -> None:
    options = Pruning(neurons=True, sparsity=0.75, prune_begin=0.0, prune_end=1.0)
    left = []
    for parts in ((0.25,), (0.25, 0.5), (0.25, 0.5, 1.0)):
        left.append(pruned(options, *parts).layers[0].kernel.numpy().any(axis=0))
    assert [kept.sum() for kept in left] == [18, 11, 8]
    assert (left[0] | ~left[1]).all()
    assert (left[1] | ~left[2]).all()


def test_filters_of_convolutions_go_with_all_that_is_read_of_them() -> None:
    network = filled(nature_cnn((36, 36, 2), 3))
    wrapped = Pruning(neurons=True, sparsity=0.5, prune_schedule="constant", prune_begin=0.0).wrap(network, "choices")
    update_masks(wrapped, 1.0, neurons=True)
    smaller, _ = shrink(plain(wrapped))
    shapes = [layer.kernel.shape for layer in smaller.layers if layer.weights]
    assert shapes == [(8, 8, 2, 16), (4, 4, 16, 32), (3, 3, 32, 32), (32, 256), (256, 3)]


def test_neurons_and_patterns_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--neurons and --pattern"):
        Pruning(neurons=True, pattern=(2, 4))
