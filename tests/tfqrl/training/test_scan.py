import numpy as np
import pytest
import tensorflow as tf

from tfqrl.training.scan import scan


def test_a_scan_updates_once_for_each_batch_in_order_and_gives_means() -> None:
    variable = tf.Variable(1.0)

    def update(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        variable.assign(variable * x[0] + x[1])
        return variable.read_value(), y

    @tf.function(jit_compile=True)
    def updates(x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        return scan(update, [x, y], ["value", "each"])

    each = np.float32([[1, 2], [3, 4], [5, 6]])
    found = updates(np.float32([[2, 1], [3, 0], [1, -4]]), each)
    # 1 -> 3 -> 9 -> 5.
    assert float(variable) == 5.0
    assert float(found["value"]) == pytest.approx(17 / 3)
    np.testing.assert_array_equal(found["each"], each)
