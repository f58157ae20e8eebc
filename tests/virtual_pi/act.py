"""Act with policies and write down what came out: `python act.py OBSERVATIONS.npz RESULT.npz POLICY...`.

Run here and in the virtual Pi, to be compared. RESULT has for each policy its actions, and every tensor that its
integer layers wrote, in the order of the layers: `NAME/actions`, `NAME/layers/0/FULLY_CONNECTED`, ...; with the numbers
of the tensors that the layer reads and writes in `NAME/tensors/0`.
"""

import sys
from pathlib import Path

import numpy as np

from edge import Policy, artifact, interpreter
from edge.quantise import FrameQuantiser, Quantiser


def main(observations_file: str, result_file: str, *policies: str) -> None:
    observations = np.load(observations_file)
    result = {}
    for path in map(Path, policies):
        policy = Policy.load(path)
        result[f"{path.stem}/actions"] = np.stack([np.asarray(policy.act(o)) for o in observations[path.stem]])
        result |= integer_layers(path, observations[path.stem])
    np.savez(result_file, **result)


def integer_layers(path: Path, observations: np.ndarray) -> dict[str, np.ndarray]:
    source = artifact.read(path)
    inspected = interpreter.build_for_inspection(source.flatbuffer)
    given = inspected.get_input_details()[0]
    quantiser = frames = None
    if given["dtype"] == np.int8:
        stored, spec = np.zeros(given["shape"][1:], np.int8), source.manifest.spec
        if spec.observation.frames:
            frames = FrameQuantiser(stored, *given["quantization"])
        else:
            quantiser = Quantiser(stored, *given["quantization"], spec.normalizer)
    integer = {tensor["index"] for tensor in inspected.get_tensor_details() if tensor["dtype"] in (np.int8, np.int16)}
    operations = [
        operation
        for operation in inspected._get_ops_details()
        if operation["op_name"] != "DELEGATE" and int(operation["outputs"][0]) in integer
    ]
    values: list[list[np.ndarray]] = [[] for _ in operations]
    for observation in observations:
        if frames is not None:
            frames.store(observation)
            observation = stored
        if quantiser is not None:
            quantiser.values[...] = observation
            quantiser.store()
            observation = stored
        inspected.set_tensor(given["index"], observation[None])
        inspected.invoke()
        for operation, seen in zip(operations, values):
            seen.append(inspected.get_tensor(operation["outputs"][0])[0])
    layers = {}
    for number, (operation, seen) in enumerate(zip(operations, values)):
        layers[f"{path.stem}/layers/{number}/{operation['op_name']}"] = np.stack(seen)
        layers[f"{path.stem}/tensors/{number}"] = np.array([*operation["inputs"], *operation["outputs"]])
    return layers


if __name__ == "__main__":
    main(*sys.argv[1:])
