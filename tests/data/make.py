"""Make the policy files beside this script again: `PYTHONPATH=benchmarks python tests/data/make.py`.

They pin the file format: what an older tfqrl wrote has to stay readable. Make them again only when the schema version
changes, and keep some of the old version, as v1/ does.
"""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from onnx_export import to_onnx

from converters import RECIPES, convert
from edge import artifact
from edge.artifact import ActionSpec, Artifact, Golden, Normalizer, ObservationSpec, PolicySpec
from edge.policy import Policy
from tfqrl.networks import mlp

HERE = Path(__file__).parent


def main() -> None:
    rng = np.random.default_rng(0)
    observations = rng.normal((0.0, 1.0, 50.0), (1.0, 0.1, 20.0), (400, 3)).astype(np.float32)
    normalizer = Normalizer((0.0, 1.0, 50.0), (1.0, 0.1, 20.0), 10.0)
    sensors = ObservationSpec((3,), (None, None, 0.0), (None, None, 100.0))
    arm = PolicySpec(sensors, ActionSpec((2,), (-2.0, 0.0), (2.0, 1.0)), 50.0, normalizer)
    lever = PolicySpec(sensors, ActionSpec((1,), (-2.0,), (2.0,)), 20.0, None)
    shaft = ObservationSpec((2,), (None,) * 2, (None,) * 2)
    wheel = PolicySpec(shaft, ActionSpec((1,), (-1.0,), (1.0,)), 50.0, None)
    switch = PolicySpec(sensors, ActionSpec((), (), (), 4), 50.0, normalizer)
    for name, spec, outputs, recipes in (
        ("arm", arm, 2, tuple(RECIPES)),
        ("lever", lever, 1, ("float32", "int8", "int8-full")),
        ("wheel", wheel, 1, ("float32", "int8")),
        ("switch", switch, 4, ("float32", "int8", "int8-full")),
    ):
        inputs = spec.observation.shape[0]
        network = mlp(inputs, (8, 8), outputs, seed=outputs)
        for recipe in recipes:
            conversion = convert(network, spec, recipe, observations[:, :inputs], name=name)
            conversion.save(HERE / f"{name}-{recipe}.tflite", force=True)
        if name == "arm":
            # A peer for benches: the bare network, without the arm's normaliser and bounds.
            (HERE / "arm.onnx").write_bytes(to_onnx(network))
    glance(rng)


def glance(rng: np.random.Generator) -> None:
    """A policy for frames."""
    spec = PolicySpec(ObservationSpec((12, 12, 2), (), (), "uint8"), ActionSpec((), (), (), 3), 30.0, None)
    # Blobs, black and white among them: they take less room in the files than noise does.
    frames = np.repeat(np.repeat(rng.integers(0, 256, (400, 3, 3, 2), np.uint8), 4, axis=1), 4, axis=2)
    frames[0], frames[1] = 0, 255
    layers, glorot = keras.layers, keras.initializers.GlorotUniform
    network = keras.Sequential(
        [
            keras.Input(spec.observation.shape),
            layers.Conv2D(4, 4, 2, activation="relu", kernel_initializer=glorot(seed=1)),
            layers.Flatten(),
            layers.Dense(3, kernel_initializer=glorot(seed=2)),
        ]
    )
    # A network's mean output is of no use to anyone: without it, all choices are made.
    logits = np.asarray(network(frames * np.float32(1 / 255)))
    network.layers[-1].bias.assign(-logits.mean(axis=0))
    for recipe in ("float32", "int8", "int8-full"):
        convert(network, spec, recipe, frames, name="glance").save(HERE / f"glance-{recipe}.tflite", force=True)
    conversion = convert(network, spec, "int8-full", frames, name="glance", logits=True)
    conversion.save(HERE / "glance-int8-logits.tflite", force=True)
    conversion = convert(network, spec, "float32", frames, name="glance", logits=True)
    conversion.save(HERE / "glance-logits.tflite", force=True)
    # Bytes for input and output, which no recipe has, as TensorFlow's own conversion makes them.
    source = conversion.artifact
    flatbuffer = by_tensorflow(network, frames, tf.uint8)
    policy = Policy(flatbuffer, spec)
    golden = np.array([policy.act(frame) for frame in source.golden.observations], np.int64)
    manifest = dataclasses.replace(
        source.manifest,
        flatbuffer_sha256=artifact.sha256(flatbuffer),
        flatbuffer_bytes=len(flatbuffer),
        recipe={"name": "uint8-full"},
        layers=(),
        compressed_bytes=None,
    )
    artifact.write(
        HERE / "glance-uint8-full.tflite",
        Artifact(manifest, flatbuffer, Golden(source.golden.observations, golden)),
        force=True,
    )


def by_tensorflow(network: keras.Model, frames: np.ndarray, dtype: tf.DType) -> bytes:
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


if __name__ == "__main__":
    main()
