"""From an agent's weights to the policies that actors get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters.stripping import plain
from converters.template import Template, TemplateError
from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from tfqrl.actorq.acting import Rebuilt, Rewritten, cost_s, is_followed
from tfqrl.actorq.messages import Push
from tfqrl.actorq.options import RECIPES, Precision
from tfqrl.actorq.stopwatch import Stopwatch
from tfqrl.exploration import Explorer
from tfqrl.options import silent_stderr

Array = npt.NDArray[Any]


class Publisher:
    """Writes weights into a flatbuffer and puts that where actors find it.

    Attributes:
      in_place: actors write new policies over their old ones; else they build them anew.
      pushes: how many were published.
      push_bytes: size of one.
    """

    def __init__(
        self,
        network: keras.Sequential,
        observation: ObservationSpec,
        normalizer: Normalizer | None,
        precision: Precision,
        *,
        acts: int,
        put: Callable[[Array], Any],
    ) -> None:
        """For policies of this network.

        Args:
          network: whose weights will be published.
          observation: what it reads.
          normalizer: of that; None if there is none.
          precision: of the policies.
          acts: how often an actor acts by one of them, about.
          put: puts bytes where actors find them, and returns what they need for that.

        Raises:
          TemplateError: there are no templates for such networks.
        """
        network = plain(network)
        outputs = network.output_shape[-1]
        unbounded = (None,) * outputs
        # Actors explore: they need what the network gives, not what is done with that on a device.
        spec = PolicySpec(observation, ActionSpec((outputs,), unbounded, unbounded), None, normalizer)
        self._put = put
        with silent_stderr():  # the first interpreter in a process says which kernels it has
            self._template, self.in_place = _fastest(network, spec, RECIPES[precision], acts)
        self.pushes, self.push_bytes = 0, len(self._template.flatbuffer)

    def publish(
        self,
        weights: list[Array],
        normalizer: Normalizer | None,
        *,
        updates: int,
        explorer: Explorer,
        watch: Stopwatch,
    ) -> Push:
        """What actors are told of a policy with these weights, which has had so many updates."""
        self._template.write(weights, normalizer)
        watch.lap("quantise")
        reference = self._put(np.frombuffer(self._template.flatbuffer, np.uint8))
        watch.lap("push")
        self.pushes += 1
        return Push(reference, self._template.spec, updates, explorer, self.in_place)


def _fastest(network: keras.Sequential, spec: PolicySpec, recipe: str, acts: int) -> tuple[Template, bool]:
    """A template, and whether actors are faster if they write over their policies: tried here and now."""
    anew = Template(network, spec, recipe)
    try:
        in_place = Template(network, spec, recipe, in_place=True)
    except TemplateError:
        return anew, False
    first = _copy(in_place)
    rng = np.random.default_rng(0)
    in_place.write([rng.standard_normal(weights.shape, np.float32) for weights in network.get_weights()])
    if not is_followed(first, _copy(in_place), spec):
        return anew, False
    faster = cost_s(Rewritten, first, spec, acts) < cost_s(Rebuilt, _copy(anew), spec, acts)
    return (in_place, True) if faster else (anew, False)


def _copy(template: Template) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytes(template.flatbuffer), np.uint8)
