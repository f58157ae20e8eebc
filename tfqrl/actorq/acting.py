"""Policies of actors, and how a new one is taken: built anew, or written over the old one.

The fastest kernels (XNNPACK's) pack the weights when an interpreter is built, and do not look at them again: a new
policy is a new interpreter. Plain kernels read them where they lie, in the flatbuffer, which can be written over: that
costs a copy, and each action costs more. Which is better depends on the network and on how often a policy is taken.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from edge.policy import Policy
from tfqrl.actorq.messages import Push
from tfqrl.exploration import Explorer

Bytes = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

# Of a measurement.
ACTS, TAKES = 20, 5


class Acting(Protocol):
    """What acts for an actor."""

    def __init__(self, flatbuffer: Bytes, spec: PolicySpec) -> None:
        """Act by this one."""
        ...

    def take(self, flatbuffer: Bytes) -> None:
        """Act by this one from now on, which differs in its weights."""
        ...

    def act(self, observation: npt.NDArray[Any]) -> FloatArray:
        """See `edge.policy.Policy.act`."""
        ...


class Rebuilt:
    """A policy by the fastest kernels, whose interpreter is built anew for each flatbuffer."""

    def __init__(self, flatbuffer: Bytes, spec: PolicySpec) -> None:
        self._spec = spec
        self.take(flatbuffer)

    def take(self, flatbuffer: Bytes) -> None:
        """See `Acting`."""
        self.act = Policy(bytes(flatbuffer), self._spec).act


class Rewritten:
    """A policy by kernels that read weights where they lie, of a template that keeps all of them in constants."""

    def __init__(self, flatbuffer: Bytes, spec: PolicySpec) -> None:
        self._flatbuffer = bytes(flatbuffer)
        self._policy = Policy(self._flatbuffer, spec, plain_kernels=True)
        self.act = self._policy.act
        # These bytes are nobody else's, and the interpreter reads them where they are: Python's promise that bytes do
        # not change is broken to nobody.
        address = ctypes.cast(ctypes.c_char_p(self._flatbuffer), ctypes.c_void_p).value
        assert address is not None
        memory = (ctypes.c_uint8 * len(self._flatbuffer)).from_address(address)
        self._memory = np.ctypeslib.as_array(memory)

    def take(self, flatbuffer: Bytes) -> None:
        """See `Acting`."""
        np.copyto(self._memory, flatbuffer)


class PushedPolicy:
    """The policy that an actor was pushed last: a network for `tfqrl.exploration`.

    Attributes:
      updates: how many updates it has had; -1 before the first one.
      explorer: how this actor explores with it.
    """

    def __init__(self, actor: int, actors: int) -> None:
        """Of number `actor` of several."""
        self.updates = -1
        self.explorer: Explorer
        self._actor, self._actors = actor, actors
        self._acting: Rebuilt | Rewritten | None = None

    def take(self, push: Push, flatbuffer: Bytes) -> None:
        """Be this one from now on."""
        kind = Rewritten if push.in_place else Rebuilt
        if isinstance(self._acting, kind):
            self._acting.take(flatbuffer)
        else:
            self._acting = kind(flatbuffer, push.spec)
        self.updates, self.explorer = push.updates, push.explorer.of_actor(self._actor, self._actors)

    def __call__(self, observation: npt.NDArray[Any]) -> FloatArray:
        """The network's outputs, (batch, outputs), for (batch, ...) observations of the environment."""
        assert self._acting is not None
        return np.array([self._acting.act(each) for each in observation])


def is_followed(flatbuffer: Bytes, other: Bytes, spec: PolicySpec) -> bool:
    """Whether a policy that is written over gives the actions of one that is built anew, which kernels decide."""
    observations = np.random.default_rng(0).standard_normal((8, *spec.observation.shape)).astype(np.float32)
    written = Rewritten(flatbuffer, spec)
    written.take(other)
    fresh = Rewritten(other, spec)
    return all(np.array_equal(written.act(observation), fresh.act(observation)) for observation in observations)


def cost_s(kind: type[Acting], flatbuffer: Bytes, spec: PolicySpec, acts: int) -> float:
    """Seconds for taking a policy and acting `acts` times by it, here and now; the least of some."""
    observation = np.zeros(spec.observation.shape, np.float32)
    acting = kind(flatbuffer, spec)
    act_s, take_s = [], []
    for _ in range(TAKES):
        began_s = time.perf_counter()
        acting.take(flatbuffer)
        taken_s = time.perf_counter()
        for _ in range(ACTS):
            acting.act(observation)
        act_s.append((time.perf_counter() - taken_s) / ACTS)
        take_s.append(taken_s - began_s)
    return min(take_s) + acts * min(act_s)
