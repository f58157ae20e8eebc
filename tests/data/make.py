"""Make the golden artefacts beside this file again: `python tests/data/make.py`.

They pin the file format: what an older tfqrl wrote has to stay readable. Make them again only when the schema version
changes, and keep those of the old version.
"""

from pathlib import Path

import numpy as np

from converters import convert
from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
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
            converted = convert(network, spec, recipe, observations[:, :inputs], name=name)
            converted.save(HERE / f"{name}-{recipe}.tflite", force=True)


if __name__ == "__main__":
    main()
