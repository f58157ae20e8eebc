import numpy as np
import pytest
import tf_keras as keras
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.shrink import cut_grid, shrink, summary
from converters.weights import Grid

layers = keras.layers


def mlp(*kernels_and_biases: tuple, activation: str = "relu") -> keras.Sequential:
    """Dense layers of the given kernels and biases, the last one linear."""
    last = len(kernels_and_biases) - 1
    network = keras.Sequential(
        [keras.Input((len(kernels_and_biases[0][0]),))]
        + [
            layers.Dense(len(bias), activation if i < last else None, name=f"layer_{i}")
            for i, (_, bias) in enumerate(kernels_and_biases)
        ]
    )
    network.set_weights([np.array(values, np.float32) for pair in kernels_and_biases for values in pair])
    return network


def test_a_constant_neuron_becomes_the_next_layers_bias_and_one_that_is_not_read_goes() -> None:
    network = mlp(
        ([[1, 0, 2, 3], [4, 0, 5, 6]], [0.5, 7, 0, 0]),  # the second neuron is relu(7), whatever comes
        ([[1, 2], [10, 20], [0, 0], [3, 4]], [0.25, 0.5]),  # nobody reads the third
    )
    smaller, shrunk = shrink(network)
    kernel, bias, last_kernel, last_bias = smaller.get_weights()
    np.testing.assert_array_equal(kernel, [[1, 3], [4, 6]])
    np.testing.assert_array_equal(bias, [0.5, 0])
    np.testing.assert_array_equal(last_kernel, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(last_bias, [70.25, 140.5])
    assert [layer.name for layer in smaller.layers] == ["layer_0", "layer_1"]
    assert [(s.layer, s.kept_inputs, s.kept_outputs) for s in shrunk] == [
        ("layer_0", (0, 1), (0, 3)),
        ("layer_1", (0, 3), (0, 1)),
    ]
    assert summary(shrunk) == (
        "Dead neurons were removed, units by layer layer_0 4 -> 2, layer_1 2 -> 2: 8 of 16 weights are left."
    )
    np.testing.assert_allclose(smaller(np.eye(2)), network(np.eye(2)), rtol=1e-6)


def test_what_is_dead_only_then_goes_too() -> None:
    # The last layer does not read the second neuron of the middle one, which alone reads the second of the first; and
    # the first neuron of the first is constant, which makes the third of the middle one so.
    network = mlp(
        ([[0, 1, 1], [0, 1, 2]], [2, 0, 0]),
        ([[1, 0, 5], [0, 3, 0], [1, 0, 0]], [0, 0, 1]),
        ([[1], [0], [2]], [0]),
    )
    smaller, shrunk = shrink(network)
    assert [s.units_after for s in shrunk] == [1, 1, 1]
    weights = [values.tolist() for values in smaller.get_weights()]
    assert weights == [[[1], [2]], [0], [[1]], [2], [[1]], [22]]


def test_a_dead_layer_keeps_one_neuron() -> None:
    network = mlp((np.ones((3, 4)), np.ones(4)), (np.zeros((4, 5)), np.ones(5)), (np.ones((5, 2)), np.zeros(2)))
    smaller, shrunk = shrink(network)
    assert [s.units_after for s in shrunk] == [1, 1, 2]
    np.testing.assert_array_equal(smaller(np.ones((1, 3))), network(np.ones((1, 3))))
    assert shrink(smaller)[0] is smaller


def test_a_dead_neuron_is_left_where_an_even_number_is_wanted() -> None:
    kernel = np.ones((3, 6))
    kernel[:, :3] = 0
    network = mlp((kernel, np.ones(6)), (np.ones((6, 2)), np.zeros(2)))
    smaller, shrunk = shrink(network, even=True)
    assert shrunk[0].kept_outputs == (0, 3, 4, 5)
    np.testing.assert_array_equal(smaller(np.eye(3)), network(np.eye(3)))
    assert shrink(smaller, even=True) == (smaller, ())
    network = mlp((np.ones((3, 4)), np.ones(4)), (np.zeros((4, 5)), np.ones(5)), (np.ones((5, 2)), np.zeros(2)))
    assert [s.units_after for s in shrink(network, even=True)[1]] == [2, 2, 2]


def test_a_network_in_which_nothing_is_dead_is_returned_as_it_is() -> None:
    network = mlp((np.ones((3, 4)), np.zeros(4)), (np.ones((4, 2)), np.zeros(2)))
    assert shrink(network) == (network, ())
    # Inputs that nobody reads stay, and so do outputs that read nothing.
    network = mlp(([[0, 0], [1, 1]], np.zeros(2)), ([[0, 1], [0, 1]], np.zeros(2)))
    assert shrink(network) == (network, ())


def test_networks_that_branch_are_returned_as_they_are() -> None:
    entry = keras.Input((3,))
    hidden = layers.Dense(4, kernel_initializer="zeros")(entry)
    network = keras.Model(entry, layers.Add()([hidden, hidden]))
    assert shrink(network) == (network, ())


@pytest.mark.parametrize("between", [layers.Softmax(), layers.LayerNormalization(), layers.Activation("softmax")])
def test_neurons_whose_activation_depends_on_others_stay(between: keras.layers.Layer) -> None:
    network = keras.Sequential([keras.Input((3,)), layers.Dense(4), between, layers.Dense(2)])
    kernel, bias = network.layers[0].get_weights()
    network.layers[0].set_weights([kernel * [0, 1, 1, 1], bias])
    assert shrink(network) == (network, ())


def convolutional(padding: str, *, flat: bool, first_bias: float = 0.5) -> keras.Sequential:
    """Two of the first layer's filters are constant, one is not read."""
    behind = [layers.Flatten(), layers.Dense(3)] if flat else [layers.Conv2D(3, 3, padding=padding), layers.Flatten()]
    network = keras.Sequential(
        [keras.Input((6, 5, 2)), layers.Conv2D(4, 3, padding="same"), layers.Activation("relu"), *behind]
    )
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=values.shape) for values in network.get_weights()])
    kernel, bias = network.layers[0].get_weights()
    kernel[..., [0, 2]], bias[[0, 2]] = 0, (first_bias, -1)
    network.layers[0].set_weights([kernel, bias])
    following = network.layers[3 if flat else 2]
    kernel, bias = following.get_weights()
    kernel.reshape(-1, 4, 3)[:, 3] = 0
    following.set_weights([kernel, bias])
    return network


@pytest.mark.parametrize(
    ("padding", "flat", "kept"),
    [("valid", False, (1,)), ("same", False, (0, 1)), ("valid", True, (1,))],
    ids=["valid", "same", "flattened"],
)
def test_filters_go_where_a_constant_can_be_folded(padding: str, flat: bool, kept: tuple[int, ...]) -> None:
    # relu(-1) is 0, which is the same as padding; relu(0.5) is not.
    network = convolutional(padding, flat=flat)
    smaller, shrunk = shrink(network)
    assert shrunk[0].kept_outputs == kept
    frames = np.random.default_rng(1).normal(size=(20, 6, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(smaller(frames), network(frames), rtol=1e-5, atol=1e-5)
    assert np.ptp(network(frames), axis=0).min() > 0.1


def test_a_layer_without_bias_gets_one_where_a_constant_needs_it() -> None:
    network = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, "sigmoid", use_bias=False), layers.Dense(1, use_bias=False)]
    )
    network.set_weights([np.array([[0, 1, 2], [0, 3, 4]]), np.array([[4], [1], [1]])])
    smaller, _ = shrink(network)
    assert smaller.layers[0].use_bias is False
    np.testing.assert_array_equal(smaller.layers[1].bias, [2])
    x = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    np.testing.assert_allclose(smaller(x), network(x), rtol=1e-6)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_a_trained_grid_is_cut_like_its_kernel(flat: bool, per_channel: bool) -> None:
    network = convolutional("valid", flat=flat)
    rng = np.random.default_rng(2)
    grids = {}
    for layer in network.layers:
        if layer.get_weights():
            kernel, bias = layer.get_weights()
            scale = rng.uniform(0.01, 0.1, kernel.shape[-1:] if per_channel else ()).astype(np.float32)
            integers = np.where(kernel == 0, 0, rng.integers(1, 8, kernel.shape)).astype(np.int8)
            grids[layer.name] = Grid(integers, scale, 4)
            layer.set_weights([grids[layer.name].weights, bias])
    smaller, shrunk = shrink(network)
    assert sum(s.weights_after for s in shrunk) < sum(grid.integers.size for grid in grids.values())
    for s in shrunk:
        grid = cut_grid(grids[s.layer], s)
        np.testing.assert_array_equal(grid.weights, smaller.get_layer(s.layer).kernel)
        assert grid.bits == 4


ACTIVATION = st.sampled_from(("linear", "relu", "tanh", "sigmoid"))
CONVOLUTIONS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 2), st.sampled_from(("valid", "same")), ACTIVATION), max_size=2
)
# Which part of the entries, columns, rows and whole kernels is left.
DENSITIES = st.tuples(
    st.sampled_from((1.0, 0.7, 0.3)), st.sampled_from((1.0, 0.5)), st.sampled_from((1.0, 0.5)),
    st.sampled_from((1.0, 0.8)),
)  # fmt: skip


def network_of(convolutions: list, hidden: list, densities: tuple, seed: int) -> keras.Sequential:
    made: list = [keras.Input((5, 6, 2) if convolutions else (4,))]
    for filters, stride, padding, activation in convolutions:
        made.append(layers.Conv2D(filters, 2, stride, padding, activation=activation))
    made += [layers.Flatten()] if convolutions else []
    for units, bias, activation in hidden:
        made += [layers.Dense(units, use_bias=bias), layers.Activation(activation)]
    network = keras.Sequential([*made, layers.Dense(2)])
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if layer.get_weights():
            kernel = rng.normal(size=layer.kernel.shape) / np.sqrt(np.prod(layer.kernel.shape[:-1]))
            inputs, outputs = kernel.shape[-2:]
            for density, shape in zip(densities, (kernel.shape, (outputs,), (inputs, 1), ())):
                kernel *= rng.random(shape) < density
            layer.set_weights([kernel, *(rng.normal(size=values.shape) for values in layer.get_weights()[1:])])
    return network


@settings(max_examples=60, deadline=None)
@given(
    convolutions=CONVOLUTIONS,
    hidden=st.lists(st.tuples(st.integers(1, 6), st.booleans(), ACTIVATION), max_size=3),
    densities=DENSITIES,
    seed=st.integers(0, 2**32 - 1),
)
def test_the_function_stays_the_same(convolutions: list, hidden: list, densities: tuple, seed: int) -> None:
    network = network_of(convolutions, hidden, densities, seed)
    inputs = 3 * np.random.default_rng(0).normal(size=(16, *network.input_shape[1:])).astype(np.float32)
    expected = network(inputs).numpy()
    smaller, shrunk = shrink(network)
    np.testing.assert_allclose(smaller(inputs), expected, rtol=1e-5, atol=1e-5)
    assert (smaller.input_shape, smaller.output_shape) == (network.input_shape, network.output_shape)
    assert shrink(smaller) == (smaller, ()), "nothing is left to take out"
    if shrunk:
        assert sum(s.units_after for s in shrunk) < sum(s.units_before for s in shrunk)
        originals = {layer.name: layer for layer in network.layers}
        for s in shrunk:
            kept = originals[s.layer].kernel.numpy()[..., s.kept_inputs, :][..., s.kept_outputs]
            np.testing.assert_array_equal(smaller.get_layer(s.layer).kernel, kept)
