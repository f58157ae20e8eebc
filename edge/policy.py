"""A converted policy, ready to act."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import artifact, interpreter
from edge.artifact import Artifact, FloatArray, Golden, Manifest, PolicySpec
from edge.errors import (
    GoldenMismatchError,
    ManifestError,
    NonFiniteObservationError,
    NotTFLiteError,
    ObservationShapeError,
    UsageError,
)
from edge.quantise import Dequantiser, FrameQuantiser, LogitsDequantiser, Quantiser


@dataclass(frozen=True)
class GoldenCheck:
    """What replaying the golden pairs gave.

    Attributes:
      pairs: how many pairs were replayed.
      mismatches: how many differed by more than the manifest's tolerance.
      max_error: largest difference of any action element (for discrete actions: 1 if any choice differed, else 0).
    """

    pairs: int
    mismatches: int
    max_error: float


class Policy:
    """A deterministic function from observation to action, run by a TFLite interpreter.

    >>> policy = Policy.load("policy.tflite")  # doctest: +SKIP
    >>> action = policy.act(observation)  # doctest: +SKIP

    Attributes:
      spec: what it reads and gives.
      name: what error messages call it.
      runtime: the interpreter that it got.
      manifest: its papers; None if it was built from a bare flatbuffer.
      invoke: the interpreter's own, which runs the network on the last observation; for measuring what `act` adds.
    """

    def __init__(
        self,
        flatbuffer: bytes,
        spec: PolicySpec,
        *,
        name: str = "policy",
        threads: int = 1,
        device: str = "cpu",
        plain_kernels: bool = False,
    ) -> None:
        """Build the interpreter for a flatbuffer that takes one observation and gives one action.

        Its tensors are float32 in the plant's units, or int8 or uint8 in those of `edge.quantise`; frames may be bytes
        as they are. A policy of choices gives the choice or, as float32, int8 or uint8, a logit for each.

        Args:
          flatbuffer: the model.
          spec: what it reads and gives.
          name: what error messages call it.
          threads: see `interpreter.build`.
          device: see `interpreter.build`.
          plain_kernels: see `interpreter.build`.

        Raises:
          NotTFLiteError, RuntimeMissingError, EdgeTpuError: no interpreter for this model.
          ManifestError: the graph's input or output is not what `spec` says.
        """
        self.spec = spec
        self.name = name
        self.manifest: Manifest | None = None
        self._interpreter, self.runtime = interpreter.build(
            flatbuffer, threads, device=device, plain_kernels=plain_kernels
        )
        try:
            self._bind()
        except (ValueError, RuntimeError) as error:
            raise NotTFLiteError(f"{self.runtime.name} cannot run {name}: {error}") from error

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int = 1,
        device: str = "cpu",
        trust: Sequence[str | Path] | None = None,
    ) -> Policy:
        """Read a policy file, check it, build it, and replay its golden pairs.

        With `trust`, files of public keys, it must be signed by one of them.

        Raises:
          ArtifactError: one of its subclasses, by what is wrong with the file.
          RuntimeMissingError: no interpreter is installed.
          EdgeTpuError: the Edge TPU was asked for and cannot be had.
        """
        return cls.from_artifact(artifact.read(path, trust=trust), threads=threads, device=device)

    @classmethod
    def from_artifact(cls, source: Artifact, *, threads: int = 1, device: str = "cpu") -> Policy:
        """What `load` does, for a file that has been read.

        Raises:
          GoldenMismatchError: the interpreter here gives other actions than the file expects.
        """
        manifest = source.manifest
        policy = cls(source.flatbuffer, manifest.spec, name=manifest.name, threads=threads, device=device)
        policy.manifest = manifest
        check = policy.replay(source.golden, manifest.golden_tolerance)
        if check.mismatches:
            raise GoldenMismatchError(
                f"{policy.runtime.name} {policy.runtime.version} does not reproduce {policy.name}: "
                f"{check.mismatches} of {check.pairs} golden actions differ, by up to {check.max_error:.4g}. "
                "Do not act with it here; convert the policy with a recipe that this runtime supports."
            )
        return policy

    def act(self, observation: npt.NDArray[Any]) -> Any:
        """The action for one observation.

        Args:
          observation: array of shape `spec.observation.shape`, any real dtype, in the plant's own units; frames must
            be uint8.

        Returns:
          float32 array of shape `spec.action.shape` that the caller owns; or, for a discrete policy, an integer (of
          choices with equal logits the first).

        Raises:
          ObservationShapeError: another shape, or not numbers; for frames, not bytes.
          NonFiniteObservationError: NaN or infinity. The network has not run: an integer network would have turned
            them into an action that looks sane.
        """
        # The hot path: it has to cost little beside an interpreter that needs a microsecond. Each line was measured to
        # be the cheapest of its kind; benchmarks/edge_latency.py tells what a change costs.
        if self._store_frame is not None:
            return self._act_on_frame(observation, self._store_frame)
        try:
            # numpy would make numbers of text and dates, and drop the imaginary part of a complex number.
            if observation.shape != self._observation_shape or observation.dtype.kind not in "fiub":
                raise ObservationShapeError(self._shape_message(observation))
            self._observation[...] = observation
            # 0 * x is 0 for every finite x and NaN for the others, so this product is 0 only if all are finite.
            finite = self._flat_dot(self._zeros) == 0.0
        except (AttributeError, TypeError, ValueError) as error:
            raise ObservationShapeError(self._shape_message(observation)) from error
        except (RuntimeWarning, FloatingPointError):
            # numpy warns of 0 * inf and of a number too large for float32; here a program made that an error.
            finite = False
        if not finite:
            raise NonFiniteObservationError(observation)
        if self._store is not None:
            self._store()
        self.invoke()
        return self._take_action()

    def logits(self, observation: npt.NDArray[Any]) -> FloatArray:
        """The logit of each choice for one observation, float32 (n,), in an array that the caller owns.

        Raises:
          UsageError: the graph gives the choice alone, or an action that is no choice.
          ObservationError: as `act`.
        """
        if self._take_logits is None:
            raise UsageError(f"{self.name} gives actions only; convert it so that it gives logits.")
        self.act(observation)
        return self._take_logits()

    def replay(self, golden: Golden, tolerance: Sequence[float]) -> GoldenCheck:
        """Act on golden observations and compare; `tolerance` is the allowed difference of each action element."""
        actions = np.stack([np.asarray(self.act(observation)) for observation in golden.observations])
        if self.spec.action.discrete:
            differs = actions != golden.actions
            return GoldenCheck(len(actions), int(differs.sum()), float(differs.any()))
        error = np.abs(actions.astype(np.float64) - golden.actions).reshape(len(actions), -1)
        # `not <=` rather than `>`: a NaN must count as a mismatch.
        mismatches = ~(error <= np.asarray(tolerance)).all(axis=1)
        return GoldenCheck(len(actions), int(mismatches.sum()), float(error.max()))

    def _act_on_frame(self, frame: npt.NDArray[Any], store: Callable[[npt.NDArray[np.uint8]], object]) -> Any:
        try:
            # Not even other integers: numpy would wrap them round, and a frame of floats may be divided by 255 already.
            if frame.shape != self._observation_shape or frame.dtype != np.uint8:
                raise ObservationShapeError(self._shape_message(frame))
            store(frame)
        except (AttributeError, TypeError, ValueError) as error:
            raise ObservationShapeError(self._shape_message(frame)) from error
        self.invoke()
        return self._take_action()

    def _bind(self) -> None:
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shape, action, frames = self.spec.observation.shape, self.spec.action, self.spec.observation.frames
        found = [(np.dtype(tensor["dtype"]), tuple(tensor["shape"])) for tensor in (*inputs, *outputs)]
        real, eight_bits, choice = (np.float32, np.int8, np.uint8), (np.int8, np.uint8), (np.int32, np.int64)
        takes = [(dtype, (1, *shape)) for dtype in (eight_bits if frames else real)]
        gives = [(dtype, (1, *action.shape)) for dtype in (choice if action.discrete else real)]
        if action.n is not None:
            gives += [(dtype, (1, action.n)) for dtype in real]
        if len(inputs) != 1 or len(outputs) != 1 or found[0] not in takes or found[1] not in gives:
            names = [f"{dtype} {list(found_shape)}" for dtype, found_shape in found]
            logits = f", or {[1, action.n]} of float32 or 8-bit integers" if action.discrete else ""
            raise ManifestError(
                f"The graph of {self.name} has inputs and outputs {', '.join(names)}; its spec promises "
                f"{[1, *shape]} of {'' if frames else 'float32 or '}8-bit integers to {[1, *action.shape]} of "
                f"{'32- or 64-bit integers' if action.discrete else 'float32 or 8-bit integers'}{logits}. "
                "Convert the policy again."
            )
        # Bound once: attribute look-ups are a measurable part of a call that takes a microsecond.
        self.invoke: Callable[[], None] = self._interpreter.invoke
        # The network's own input and output memory: see `interpreter.tensor_memory`.
        indices = inputs[0]["index"], outputs[0]["index"]
        self._input, self._output = (interpreter.tensor_memory(self._interpreter, index) for index in indices)
        self.invoke()
        if [self._interpreter.tensor(index)().ctypes.data for index in indices] != [
            self._input.ctypes.data,
            self._output.ctypes.data,
        ]:
            raise ManifestError(
                f"The graph of {self.name} moves its input or output while it runs, which no policy does."
            )
        self._observation_shape = shape
        self._bind_input(*inputs[0]["quantization"])
        self._bind_output(*outputs[0]["quantization"])

    def _bind_input(self, scale: float, zero_point: int) -> None:
        tensor = self._input[0, ...]
        self._store_frame: Callable[[npt.NDArray[np.uint8]], object] | None = None
        if self.spec.observation.frames:
            # Bytes without a scale are divided by 255 in the graph.
            plain = tensor.dtype == np.uint8 and scale == 0.0
            copy = functools.partial(np.copyto, tensor)
            self._store_frame = copy if plain else FrameQuantiser(tensor, scale, zero_point).store
            return
        # What `act` puts the observation into: the network's own input or, where that is integer, floats before it.
        self._store: Callable[[], None] | None = None
        self._observation = tensor
        if tensor.dtype != np.float32:
            quantiser = Quantiser(tensor, scale, zero_point, self.spec.normalizer)
            self._store, self._observation = quantiser.store, quantiser.values
        self._flat_dot = self._observation.reshape(-1).dot
        self._zeros: FloatArray = np.zeros(tensor.size, np.float32)

    def _bind_output(self, scale: float, zero_point: int) -> None:
        tensor, action = self._output[0, ...], self.spec.action
        real = tensor.dtype == np.float32
        self._take_logits: Callable[[], FloatArray] | None = None
        if action.discrete and tensor.ndim == 0:
            self._take_action: Callable[[], Any] = tensor.item
        elif action.discrete:
            self._take_logits = tensor.copy if real else LogitsDequantiser(tensor, scale, zero_point).logits
            # The scale is above 0, so the integers' largest is the logits' too.
            self._take_action = lambda: int(tensor.argmax())
        elif real:
            self._take_action = tensor.copy
        else:
            self._take_action = Dequantiser(tensor, scale, zero_point, action).action

    def _shape_message(self, observation: Any) -> str:
        if isinstance(observation, np.ndarray):
            given = f"{observation.dtype} {observation.shape}"
        else:
            given = type(observation).__name__
        kind = "numpy array of uint8" if self.spec.observation.frames else "real numpy array"
        return f"{self.name} takes a {kind} of shape {self._observation_shape}; it was given {given}."
