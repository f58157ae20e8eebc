"""The simulation of hardware in the loop: what messages do to an environment, without the network they come by.

In lock-step each action steps the environment once and is answered with the observation. In real time the environment
steps at a rate of its own, with the newest action, and each step sends an observation; once the client has been silent
for HOLD_S, it steps with the action zero, as a motor controller with a watchdog would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from edge.errors import UsageError
from edge.plants.hil_messages import (
    ACTION,
    BYE,
    HELLO,
    MAX_VALUES,
    OBSERVATION,
    RESET,
    TAKEN,
    WELCOME,
    Message,
    MessageError,
    Terms,
    decode,
    encode,
)
from edge.safety import action_bounds, failsafe_action
from tfqrl.envs import policy_spec

HOLD_S = 0.5
# After so long without a word from its client the server is free for another.
SILENCE_S = 10.0

# What is to be sent: to whom, and the bytes.
Replies = list[tuple[bytes, bytes]]


class Simulation:
    """An environment that serves one client at a time.

    A message with the number of the one before is answered again and steps nothing, so that a client may ask again for
    an answer that was lost.

    Attributes:
      realtime_hz: steps per second; None in lock-step.
      steps: how many were made.
      clients: how many were served.
      returns: the return of each finished episode.
      lost: numbers of actions and resets that were missing when a later one arrived.
      late: actions and resets that arrived after a later one.
      repeated: actions and resets with the number of the one before.
      malformed: messages that are none, that no client sends, or whose action is none of this environment.
      refused: messages of other clients while one was served, or of clients that were not greeted.
      overruns: steps in real time that came more than a period late; the simulation then lags behind.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        seed: int = 0,
        realtime_hz: float | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        """Serve `env`, which each client's reset seeds with `seed`; `say` gets a line for each event.

        Raises:
          UsageError: the observation is frames, it or the action too large for a message, or a number makes no sense.
        """
        self._env, self._say = env, say
        self._spec = spec = policy_spec(env, None)
        if spec.observation.frames:
            raise UsageError(f"{env} observes camera frames; a message carries numbers.")
        if max(math.prod(spec.observation.shape), math.prod(spec.action.shape)) > MAX_VALUES:
            raise UsageError(f"A message has room for {MAX_VALUES} values; {env} observes or acts by more.")
        if not 0 <= seed < 2**53:
            raise UsageError(f"--seed must lie in 0..2^53 - 1; it was given {seed}.")
        if realtime_hz is not None and not 0 < realtime_hz <= 1e4:
            raise UsageError(f"A rate of {realtime_hz:g} Hz is not possible. Give one between 0 and 1e4.")
        self.realtime_hz = realtime_hz
        self._terms = Terms(spec.observation.shape, spec.action.shape, spec.action.n, seed, realtime_hz)
        self._zero = failsafe_action(spec, "zero")
        if not spec.action.discrete:
            self._low, self._high = action_bounds(spec)
        self.steps = self.clients = 0
        self.returns: list[float] = []
        self.lost = self.late = self.repeated = self.malformed = self.refused = self.overruns = 0
        self._peer: bytes | None = None
        self._leave()

    def counts(self) -> dict[str, int]:
        """The counts, by name."""
        names = ("lost", "late", "repeated", "malformed", "refused", "overruns")
        return {name: getattr(self, name) for name in names}

    def receive(self, peer: bytes, data: bytes, now_ns: int) -> Replies:
        """Take in a message that `peer` sent; returns what to send."""
        try:
            message = decode(data)
        except MessageError:
            self.malformed += 1
            return []
        if message.kind == HELLO:
            return self._greet(peer, now_ns)
        if peer != self._peer:
            self.refused += 1
            return []
        self._heard_ns = now_ns
        if message.kind == BYE:
            self._leave("left")
            return []
        if message.kind not in (RESET, ACTION):
            self.malformed += 1
            return []
        return self._obey(message, now_ns)

    def advance(self, now_ns: int) -> Replies:
        """Step if real time asks for it, and give up a client that is silent; returns what to send."""
        if self._peer is not None and now_ns - self._heard_ns > SILENCE_S * 1e9:
            self._leave(f"has been silent for {SILENCE_S:g} s")
        due_ns = self.due_ns
        if due_ns is None or now_ns < due_ns or self.realtime_hz is None:
            return []
        period_ns = round(1e9 / self.realtime_hz)
        missed = (now_ns - due_ns) // period_ns
        self.overruns += missed
        self.due_ns = due_ns + (1 + missed) * period_ns
        self._step(self._zero if now_ns - self._heard_ns > HOLD_S * 1e9 else self._held)
        return self._answer()

    def _greet(self, peer: bytes, now_ns: int) -> Replies:
        if self._peer is not None and peer != self._peer and now_ns - self._heard_ns <= SILENCE_S * 1e9:
            self.refused += 1
            return [(peer, encode(Message(TAKEN)))]
        if peer != self._peer:
            self._leave("has been silent")
            self._peer = peer
            self.clients += 1
            self._say(f"client {self.clients} is here")
        self._heard_ns = now_ns
        return [(peer, encode(Message(WELCOME, values=self._terms.values())))]

    def _obey(self, message: Message, now_ns: int) -> Replies:
        action = None
        if message.kind == ACTION:
            action = self._action(message.values)
            # Nothing can be stepped before the first reset.
            if action is None or self._sequence == 0:
                self.malformed += 1
                return []
        step = message.sequence - self._sequence
        if step <= 0:
            if step == 0 and self._last:
                self.repeated += 1
                return self._again()
            self.late += 1
            return []
        self.lost += step - 1
        self._sequence, self._time_ns = message.sequence, message.time_ns
        if message.kind == RESET:
            self._observation, _ = self._env.reset(seed=self._terms.seed)
            self._return, self._length, self._episode, self._last_return = 0.0, 0, 0, 0.0
            self._held = self._zero
            # The first step is one period from now.
            self.due_ns = None if self.realtime_hz is None else now_ns + round(1e9 / self.realtime_hz)
            return self._answer()
        if self.realtime_hz is not None:
            self._held = action
            return []
        self._step(action)
        return self._answer()

    def _step(self, action: Any) -> None:
        self._observation, reward, terminated, truncated, _ = self._env.step(action)
        self.steps += 1
        self._length += 1
        self._return += float(reward)
        if terminated or truncated:
            self._episode, self._last_return = (self._episode + 1) % 2**32, self._return
            if math.isfinite(self._return):
                self.returns.append(self._return)
            self._say(f"episode {self._episode}: return {self._return:.1f}, {self._length} steps")
            self._observation, _ = self._env.reset()
            self._return, self._length = 0.0, 0

    def _answer(self) -> Replies:
        self._number += 1
        values = np.asarray(self._observation, np.float64).reshape(-1)
        self._last = encode(
            Message(OBSERVATION, self._number, self._episode, self._sequence, self._time_ns, self._last_return, values)
        )
        return self._again()

    def _again(self) -> Replies:
        return [] if self._peer is None else [(self._peer, self._last)]

    def _action(self, values: npt.NDArray[np.float64]) -> Any:
        """The action as the environment takes it, within its bounds; None if it is none."""
        spec = self._spec.action
        if values.size != math.prod(spec.shape):
            return None
        if spec.n is not None:
            choice = float(values[0])
            return int(choice) if 0 <= choice < spec.n and choice % 1 == 0 else None
        if not np.isfinite(values).all():
            return None
        # float32 is what policies give; numbers beyond its range become its bounds.
        limit = np.finfo(np.float32).max
        action = np.clip(values, -limit, limit).astype(np.float32).reshape(spec.shape)
        return np.clip(action, self._low, self._high)

    def _leave(self, why: str = "") -> None:
        if self._peer is not None:
            self._say(f"client {self.clients} {why}")
        self._peer: bytes | None = None
        self._heard_ns = self._number = self._sequence = self._time_ns = 0
        self._last = b""
        self._observation: Any = None
        self._return, self._length, self._episode, self._last_return = 0.0, 0, 0, 0.0
        self._held = self._zero
        # When the next step in real time is due; None if none is.
        self.due_ns: int | None = None
