"""A flatbuffer that is made once for an architecture, and written new weights into from then on.

The converter takes some 300 ms, which a learner that sends its policy to actors several times a second does not have.
Writing takes 0.1 to 1.2, and gives the bytes that the converter would have given (benchmarks/template.py), but for what
it does to the network before: dead neurons, a missing normaliser and what choices have in common are left as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras
from ai_edge_litert import schema_py_generated as schema

from converters import recipe, tflite
from converters.export import DeployedPolicy
from converters.flatbuffer import DTYPES, WITH_WEIGHTS, Operators
from converters.quantise import quantise
from converters.recipe import Recipe
from converters.scales import separate_scales
from converters.weights import range_scale
from edge.artifact import FloatArray, Normalizer, PolicySpec
from edge.errors import UserError
from edge.policy import Policy

Array = npt.NDArray[Any]

_CACHE_LINE_BYTES = 64
_FLOAT16_MAX = np.float32(np.finfo(np.float16).max)


class TemplateError(UserError):
    """Weights that do not fit a template, or a network that none can be made for."""


@dataclass(frozen=True)
class _Place:
    """Where the flatbuffer has one array of weights.

    Attributes:
      name: what error messages call it.
      shape: in Keras, outputs last.
      values: the flatbuffer's own memory, outputs first and the rest flattened: (outputs, rows).
      scale: the memory of the scales of integers, (outputs,) or (1,); None of floats.
    """

    name: str
    shape: tuple[int, ...]
    values: Array
    scale: FloatArray | None


class Template:
    """A policy's flatbuffer, whose weights can be replaced.

    >>> template = Template(network, spec, "dynamic-int8")  # doctest: +SKIP
    >>> template.write(network.get_weights(), normalizer)  # doctest: +SKIP
    >>> connection.send_bytes(template.flatbuffer)  # doctest: +SKIP

    An actor needs the flatbuffer and the spec, of which it makes an `edge.policy.Policy`: no TensorFlow, 0.3 to 1.3 ms.
    XNNPACK packs the weights when an interpreter is built, and does not look at them again; a template that is made
    `in_place` is for kernels that do (`tfqrl.actorq.acting`).

    Attributes:
      flatbuffer: the bytes of the last `write`, read-only. It is one memory: copy what must outlast the next `write`.
      spec: what the policy reads and gives, with the normaliser that was written last.
    """

    def __init__(
        self,
        network: keras.Sequential,
        spec: PolicySpec,
        chosen: Recipe | str = "float32",
        *,
        logits: bool = False,
        in_place: bool = False,
    ) -> None:
        """Convert `network` and find its weights in the result, which takes two conversions.

        Args:
          network: Dense, Conv2D, Flatten and Activation layers in a row. It is not changed, and not followed either:
            what it learns is to be written.
          spec: the policy seen from outside, its normaliser included.
          chosen: float32, float16 or dynamic-int8, or a recipe made from one of them.
          logits: let a discrete policy's graph end with the logits.
          in_place: keep all that is written in constants that kernels may read where they lie, scales too (see
            `converters.scales`); of float32 and dynamic-int8, and dense layers.

        Raises:
          UnknownNameError: no such recipe.
          TemplateError: another recipe, or a network whose weights the converter rearranges.
          ExportError: the network does not fit the spec.
        """
        chosen = recipe.get(chosen) if isinstance(chosen, str) else chosen
        if chosen.calibrated or chosen.weight_bits < 8:
            raise TemplateError(
                f"There are templates for float32, float16 and dynamic-int8, none for {chosen.name}. Convert each set "
                "of weights with `converters.convert`."
            )
        if in_place and (chosen.weight_bits == 16 or any(len(weights.shape) > 2 for weights in network.weights)):
            raise TemplateError(f"Kernels do not read the weights of {network.name} as {chosen.name} where they lie.")
        self.spec = spec
        self._recipe, self._logits, self._in_place = chosen, logits, in_place
        # Of random weights, because the converter leaves out what is zero and stores once what is equal.
        rng = np.random.default_rng(0)
        (weights, normalizer), (others, other_normalizer) = (_draw(network, spec, rng) for _ in range(2))
        first = dataclasses.replace(spec, normalizer=normalizer)
        self._bytes = bytearray(self._converted(network, weights, first))
        self.flatbuffer = memoryview(self._bytes).toreadonly()
        self._find_places(network)
        # Nothing is guessed: a second set, written, has to give the same bytes as when it is converted.
        self.write(others, other_normalizer)
        if self.flatbuffer != self._converted(network, others, self.spec):
            raise _rearranged(network)
        self.write(network.get_weights(), spec.normalizer)

    def write(self, weights: Sequence[npt.ArrayLike], normalizer: Normalizer | None = None) -> None:
        """Replace all weights and, if one is given, the normaliser.

        Args:
          weights: in the order and the shapes of `network.get_weights()`.
          normalizer: with the clip that the template was made with.

        Raises:
          TemplateError: they do not fit, or there is NaN or infinity among them. Nothing has been written then.
        """
        folded = self._folded
        with np.errstate(over="ignore"):  # infinity is looked for once all is float32
            if normalizer is not None:
                mean, gain = self._mean_and_gain(normalizer)
                folded = None if folded is None else gain[:, np.newaxis]
            rows = self._rows(weights)
            if folded is not None:
                rows[0] = rows[0] * folded
        scales = [self._scale(place, values) for place, values in zip(self._places, rows)]

        for place, values, scale in zip(self._places, rows, scales):
            self._store(place, values, scale)
        if normalizer is not None:
            self._mean[...] = mean
            if folded is None:
                self._gain[...] = gain
            self._folded = folded
            self.spec = dataclasses.replace(self.spec, normalizer=normalizer)

    def policy(self) -> Policy:
        """A policy with the weights of the last `write`, which it keeps."""
        return Policy(bytes(self.flatbuffer), self.spec)

    def _converted(self, network: keras.Sequential, weights: Sequence[FloatArray], spec: PolicySpec) -> bytes:
        flatbuffer = _convert(network, weights, spec, self._recipe, logits=self._logits)
        return separate_scales(flatbuffer) if self._in_place and self._recipe.weight_bits == 8 else flatbuffer

    def _find_places(self, network: keras.Sequential) -> None:
        model = schema.Model.GetRootAs(self._bytes)
        graph = model.Subgraphs(0)
        operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
        codes = [model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() for operator in operators]
        # Kernels take float16 weights from an operator that makes float32 of them.
        narrow = {o.Outputs(0): o.Inputs(0) for o, code in zip(operators, codes) if code == Operators.DEQUANTIZE}

        def memory(operator: schema.Operator, position: int) -> tuple[Array, FloatArray | None]:
            if operator.InputsLength() <= position or operator.Inputs(position) < 0:
                raise _rearranged(network)
            tensor = graph.Tensors(narrow.get(operator.Inputs(position), operator.Inputs(position)))
            data, quantization = model.Buffers(tensor.Buffer()).DataAsNumpy(), tensor.Quantization()
            if isinstance(data, int):  # it has no data: not a constant
                raise _rearranged(network)
            scaled = quantization is not None and quantization.ScaleLength() > 0
            return data.view(DTYPES[tensor.Type()]), quantization.ScaleAsNumpy() if scaled else None

        layers = [layer for layer in network.layers if layer.weights]
        if not layers:
            raise TemplateError(f"{network.name} has no weights that could be written.")
        weighted = [i for i, code in enumerate(codes) if code in WITH_WEIGHTS]
        if len(layers) != len(weighted):
            raise _rearranged(network)
        self._places = []
        for layer, i in zip(layers, weighted):
            for position, variable in enumerate(layer.weights, start=1):
                shape = tuple(variable.shape)
                if not (self._in_place and self._recipe.weight_bits == 8):
                    values, scale = memory(operators[i], position)
                elif position == 1:
                    values, (scale, _) = memory(operators[i], 1)[0], memory(operators[i + 1], 1)
                else:
                    values, scale = memory(operators[i + 2], 1)
                if values.size != np.prod(shape):
                    raise _rearranged(network)
                name = variable.name.split("/")[-1].split(":")[0]
                self._places.append(_Place(f"{name} of {layer.name}", shape, values.reshape(shape[-1], -1), scale))
        largest = max(place.values.size for place in self._places)
        self._floats, self._integers = np.empty(largest, np.float32), np.empty(largest, np.int8)

        before = {codes[i]: operators[i] for i in range(weighted[0])}
        # Where it can, the converter multiplies the first kernel instead of each observation.
        self._folded: Array | None = None
        if self.spec.normalizer is not None:
            self._mean, _ = memory(before[Operators.SUB], 1)
        if Operators.MUL in before:
            self._gain, _ = memory(before[Operators.MUL], 1)
        elif self.spec.observation.dtype == "uint8":
            self._folded = np.float32(1 / 255)
        elif self.spec.normalizer is not None:
            self._folded = np.ones((1, 1), np.float32)  # until the first `write`

    def _rows(self, weights: Sequence[npt.ArrayLike]) -> list[FloatArray]:
        """The weights as float32, (rows, outputs) each, without a copy if they are float32."""
        arrays = [np.asarray(values, np.float32) for values in weights]
        given, wanted = [array.shape for array in arrays], [place.shape for place in self._places]
        if given == wanted:
            return [array.reshape(-1, array.shape[-1]) for array in arrays]
        if len(given) != len(wanted):
            names = ", ".join(place.name for place in self._places)
            raise TemplateError(f"The template takes {len(wanted)} arrays ({names}); it was given {len(given)}.")
        place, shape = next((p, shape) for p, shape in zip(self._places, given) if p.shape != shape)
        raise TemplateError(
            f"The {place.name} has the shape {place.shape} in this template; it was given {shape}. "
            "Make a template for each architecture."
        )

    def _mean_and_gain(self, normalizer: Normalizer) -> tuple[FloatArray, FloatArray]:
        """The constants of a normaliser as the graph has them: mean and 1/deviation, (observations,) float32."""
        known = self.spec.normalizer
        if known is None or (normalizer.clip, len(normalizer.mean), len(normalizer.std)) != (
            known.clip,
            len(known.mean),
            len(known.std),
        ):
            made_with = "no normaliser" if known is None else f"{len(known.mean)} elements, clipped at {known.clip}"
            raise TemplateError(
                f"The template was made with {made_with}; the normaliser that it was given has {len(normalizer.mean)} "
                f"means, {len(normalizer.std)} deviations and is clipped at {normalizer.clip}."
            )
        mean, std = np.asarray(normalizer.mean, np.float32), np.asarray(normalizer.std, np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.float32(1) / std
        if not (np.isfinite(mean).all() and np.isfinite(gain).all() and (gain > 0).all()):
            raise TemplateError("A normaliser's means must be finite, and its deviations finite and above 0.")
        return mean, gain

    def _scale(self, place: _Place, values: FloatArray) -> Array:
        """The scale of integers; of floats, whose arithmetic needs none, the largest. Refuses what is not finite."""
        if place.scale is not None:
            scale = range_scale(values, 127, per_channel=self._recipe.per_channel)
        else:
            scale = np.maximum(values.max(), -values.min())
        if not np.isfinite(scale).all():
            raise TemplateError(f"The {place.name} has NaN or infinity in it: nothing was written.")
        return scale

    def _store(self, place: _Place, values: FloatArray, scale: Array) -> None:
        scratch = self._floats[: values.size].reshape(values.shape)
        if place.scale is not None:
            place.scale[...] = scale
            integers = self._integers[: values.size].reshape(values.shape)
            np.rint(np.divide(values, scale, out=scratch), out=scratch)
            np.copyto(integers, scratch, casting="unsafe")
            _transpose(integers, place.values)
        elif place.values.dtype == np.float16:
            _transpose(np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX, out=scratch), place.values)
        else:
            _transpose(values, place.values)


def _transpose(source: Array, target: Array) -> None:
    """`target[...] = source.T`, a cache line of a row at a time: at once it takes up to four times as long."""
    height = _CACHE_LINE_BYTES // source.itemsize
    for i in range(0, len(source), height):
        np.copyto(target[:, i : i + height], source[i : i + height].T, casting="same_kind")


def _draw(
    network: keras.Sequential, spec: PolicySpec, rng: np.random.Generator
) -> tuple[list[FloatArray], Normalizer | None]:
    """Random weights for a network, and a random normaliser if it has one."""
    weights = [rng.standard_normal(values.shape, np.float32) for values in network.get_weights()]
    if spec.normalizer is None:
        return weights, None
    n = len(spec.normalizer.mean)
    mean, std = tuple(rng.normal(size=n).tolist()), tuple(rng.uniform(0.5, 2.0, n).tolist())
    return weights, dataclasses.replace(spec.normalizer, mean=mean, std=std)


def _convert(
    network: keras.Sequential, weights: Sequence[FloatArray], spec: PolicySpec, chosen: Recipe, *, logits: bool
) -> bytes:
    """What the converter makes of a network with other weights."""
    other = keras.models.clone_model(network)
    other.set_weights(weights)
    flatbuffer = tflite.to_float32(DeployedPolicy(other, spec, logits=logits))
    return flatbuffer if chosen.weight_bits == 32 else quantise(flatbuffer, chosen, {}, {})[0]


def _rearranged(network: keras.Sequential) -> TemplateError:
    layers = ", ".join(layer.name for layer in network.layers)
    return TemplateError(
        f"The converter rearranges the weights of {network.name} ({layers}): others cannot be written in their place. "
        "Convert each set of weights with `converters.convert`."
    )
