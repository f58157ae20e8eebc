"""TensorFlow Probability, imported so that it works beside TF-MOT.

Both need Keras 2, which is tf_keras. TF-MOT makes TensorFlow say that this is its own Keras, by a variable that
TensorFlow should have found as it was imported; TFP then looks for it in a module that is not there.
"""

import sys

import tf_keras

_MISSING = "tensorflow.compat.v2.keras"
# Only for as long as TFP looks.
_added = sys.modules.setdefault(_MISSING, tf_keras) is tf_keras
try:
    import tensorflow_probability as tfp

    # It is lazy: what is used of it has to be imported now.
    layers, distributions, util = tfp.layers, tfp.distributions, tfp.util
    _ = layers.DenseLocalReparameterization, distributions.Normal, util.DeferredTensor
finally:
    if _added:
        del sys.modules[_MISSING]
