"""Make the artefacts of a policy for frames, `glance-*.tflite`, again: `python tests/data/make_frames.py`.

As `make.py` does for vectors. TensorFlow's own full-integer conversion makes the integer ones, as other people's tools
do.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from converters import tflite
from converters.export import DeployedPolicy
from edge import artifact
from edge.artifact import ActionSpec, Artifact, Comparison, Golden, Manifest, ObservationSpec, PolicySpec
from edge.policy import Policy

HERE = Path(__file__).parent
SPEC = PolicySpec(ObservationSpec((12, 12, 2), (), (), "uint8"), ActionSpec((), (), (), 3), 30.0, None)


def main() -> None:
    rng = np.random.default_rng(0)
    # Blobs, black and white among them: they take less room in the files than noise does.
    frames = np.repeat(np.repeat(rng.integers(0, 256, (400, 3, 3, 2), np.uint8), 4, axis=1), 4, axis=2)
    frames[0], frames[1] = 0, 255
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(SPEC.observation.shape),
            layers.Conv2D(4, 4, 2, activation="relu", kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
            layers.Flatten(),
            layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=2)),
        ]
    )
    with_choice, with_logits = DeployedPolicy(network, SPEC), DeployedPolicy(network, SPEC, logits=True)
    # A network's mean output is of no use to anyone: without it, all choices are made.
    logits = np.asarray(with_logits(tf.constant(frames)))
    network.layers[-1].bias.assign(-logits.mean(axis=0))
    ordered = np.sort(np.asarray(with_logits(tf.constant(frames))))
    clear = frames[ordered[:, -1] - ordered[:, -2] > 0.1]
    for name, flatbuffer in (
        ("float32", tflite.to_float32(with_choice)),
        ("logits", tflite.to_float32(with_logits)),
        ("int8-full", integer(network, frames, tf.int8)),
        ("uint8-full", integer(network, frames, tf.uint8)),
    ):
        artifact.write(
            HERE / f"glance-{name}.tflite", papers(name, flatbuffer, frames, clear, with_choice.act), force=True
        )


def integer(network: keras.Model, frames: np.ndarray, dtype: tf.DType) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [frame[None].astype(np.float32) * np.float32(1 / 255)] for frame in frames
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    # tflite-runtime 2.14 knows one scale a dense layer.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    converter.inference_input_type = converter.inference_output_type = dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


def papers(
    recipe: str, flatbuffer: bytes, frames: np.ndarray, clear: np.ndarray, act: Callable[[np.ndarray], np.ndarray]
) -> Artifact:
    policy = Policy(flatbuffer, SPEC)
    agreement = float(np.mean([policy.act(frame) == choice for frame, choice in zip(frames, act(frames))]))
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name="glance",
        flatbuffer_sha256=artifact.sha256(flatbuffer),
        flatbuffer_bytes=len(flatbuffer),
        spec=SPEC,
        recipe={"name": recipe},
        layers=(),
        golden_tolerance=(0.0,),
        comparison=Comparison(len(frames), None, None, agreement, None),
        training={},
        versions={},
    )
    golden = clear[np.linspace(0, len(clear) - 1, 32).astype(int)]
    return Artifact(manifest, flatbuffer, Golden(golden, np.array([policy.act(frame) for frame in golden], np.int64)))


if __name__ == "__main__":
    main()
