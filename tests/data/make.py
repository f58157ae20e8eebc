"""Make the golden artefacts beside this file again: `PYTHONPATH=benchmarks python tests/data/make.py`.

They pin the file format: what an older tfqrl wrote has to stay readable. Make them again only when the schema version
changes, and keep those of the old version.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tf_keras as keras
from ai_edge_quantizer import quantizer, recipe_manager
from ai_edge_quantizer.recipe import TFLOperationName
from onnx_export import to_onnx

from converters import calibration, convert, tflite
from converters.export import DeployedPolicy
from edge import artifact
from edge.artifact import ActionSpec, Artifact, FloatArray, Normalizer, ObservationSpec, PolicySpec
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
    for name, spec, outputs in (("arm", arm, 2), ("lever", lever, 1), ("wheel", wheel, 1), ("switch", switch, 4)):
        inputs = spec.observation.shape[0]
        network = mlp(inputs, (8, 8), outputs, seed=outputs)
        for recipe in ("float32", "int8"):
            conversion = convert(network, spec, recipe, observations[:, :inputs], name=name)
            conversion.save(HERE / f"{name}-{recipe}.tflite", force=True)
        if name == "arm":
            # A peer for benches: the bare network, without the arm's normaliser and bounds.
            (HERE / "arm.onnx").write_bytes(to_onnx(network))
        if name in ("arm", "lever"):
            source = with_integer_tensors(network, conversion.artifact, observations)
            artifact.write(HERE / f"{name}-int8-full.tflite", source, force=True)


def with_integer_tensors(network: keras.Model, float_io: Artifact, observations: FloatArray) -> Artifact:
    """The policy with int8 input and output, in normalised units: no recipe makes these yet."""
    spec = float_io.manifest.spec
    bare = dataclasses.replace(
        spec,
        normalizer=None,
        action=dataclasses.replace(spec.action, low=(-1.0,) * len(spec.action.low), high=(1.0,) * len(spec.action.low)),
    )
    flatbuffer = tflite.to_float32(DeployedPolicy(network, bare))
    normalized = np.asarray(DeployedPolicy(network, spec).normalize(observations))
    ranges = calibration.activation_ranges(flatbuffer, normalized)
    recipes = recipe_manager.RecipeManager()
    for operation in (*tflite.INTEGER_OPS, TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        recipes.add_static_config(regex=".*", operation_name=operation, activation_num_bits=8, weight_num_bits=8)
    task = quantizer.Quantizer(bytearray(flatbuffer))
    task.load_quantization_recipe(recipes.get_quantization_recipe())
    flatbuffer = bytes(
        task.quantize(
            {
                name: {"min": np.full((1, 1), low, np.float32), "max": np.full((1, 1), high, np.float32)}
                for name, (low, high) in ranges.items()
            }
        ).quantized_model
    )
    manifest = dataclasses.replace(
        float_io.manifest,
        flatbuffer_sha256=artifact.sha256(flatbuffer),
        flatbuffer_bytes=len(flatbuffer),
        recipe={"name": "int8-full"},
        layers=tflite.layers(flatbuffer),
    )
    policy = Policy(flatbuffer, spec)
    actions = np.stack([policy.act(observation) for observation in float_io.golden.observations])
    return Artifact(manifest, flatbuffer, artifact.Golden(float_io.golden.observations, actions))


if __name__ == "__main__":
    main()
