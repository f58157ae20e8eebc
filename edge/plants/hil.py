"""A simulation on another computer as a plant, over ZeroMQ: `tfqrl hil-serve` is the other end.

The messages are those of `edge.plants.hil_messages`. The server steps its simulation either once with each action
(lock-step), or at a rate of its own (real time); it says so when it is greeted.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from edge.errors import UsageError
from edge.plants import refuse_frames
from edge.plants.hil_link import CLIENT, HilError, Link, secret_file
from edge.plants.hil_messages import (
    ACTION,
    BYE,
    HELLO,
    NO_VALUES,
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

# How often a message is sent, in equal parts of the time for its answer. The server recognises it by its number.
ATTEMPTS = 3


class HilPlant:
    """Sends actions and gives the observation that answers the last one; in real time, the newest.

    `read` waits for it until `timeout_s` and then raises, which the loop answers with its failsafe action. What has
    been received can be told from the counts; those of the other direction are the server's.

    Attributes:
      observed_ns: when the action or reset was sent after which the observation that `read` last returned was made:
        it is at most that old, however long the network took. Monotonic time.
      received: observations that arrived.
      lost: sequence numbers that were missing when a later one arrived.
      late: observations that arrived after a later one, or for an action whose answer had been given up.
      repeated: observations with the number of the one before.
      malformed: messages that are none, or have another shape.
      asked_again: messages that were sent once more because there was no answer.
      unsent: messages for which there was no room any more, as the server took none.
      seed: of the server's environment; None before the plant is entered.
    """

    def __init__(
        self,
        address: str,
        spec: PolicySpec,
        *,
        keys: str | Path,
        timeout_s: float = 0.1,
        connect_timeout_s: float = 5.0,
    ) -> None:
        """Name the server, tcp://HOST:PORT; it is greeted when the plant is entered.

        Args:
          address: what `tfqrl hil-serve` prints.
          spec: of the policy.
          keys: folder with `server.key` and `client.key_secret`.
          timeout_s: how long `read` waits.
          connect_timeout_s: how long the server may take to answer the greeting, and a reset.

        Raises:
          UsageError: the policy observes camera frames, for which a message has no room.
        """
        refuse_frames(spec.observation, "hil")
        self._address, self._keys, self._spec = address, Path(keys), spec
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._link: Link | None = None
        self._begin()
        self._observation: npt.NDArray[Any] = np.zeros(spec.observation.shape)
        self._returns: list[float] = []
        self.received = self.lost = self.late = self.repeated = self.malformed = 0
        self.asked_again = self.unsent = 0
        self.observed_ns = 0
        self.seed: int | None = None

    @property
    def returns(self) -> list[float]:
        """The return of each finished episode. Waits for the answer to the last action, which may have ended one."""
        if self._link is not None:
            with contextlib.suppress(HilError):
                self._refresh(self._timeout_s)
        return self._returns

    def counts(self) -> dict[str, int]:
        """The counts, by name."""
        names = ("received", "lost", "late", "repeated", "malformed", "asked_again", "unsent")
        return {name: getattr(self, name) for name in names}

    def reset(self) -> None:
        """Let the server begin a new episode. Raises `HilError` if it does not answer."""
        self._episode = 0
        self._send(RESET)
        self._refresh(self._connect_timeout_s)

    def read(self) -> npt.NDArray[Any]:
        """See `Plant`. Raises `HilError` if no observation comes in time."""
        self._refresh(self._timeout_s)
        if self._realtime:
            self._fresh = False
        return self._observation

    def write(self, action: Any) -> Any:
        """See `Plant`. Does not wait, and does not raise: a server that takes nothing answers nothing either."""
        self._send(ACTION, np.asarray(action, np.float64).reshape(-1))
        return action

    def __enter__(self) -> HilPlant:
        """Connect and greet the server.

        Raises:
          HilError: pyzmq or a key is missing, there is no answer, or the server has another client.
          UsageError: the address is none, or the environment observes or acts otherwise than the policy.
        """
        self._link = Link(self._address, self._keys)
        self._begin()
        try:
            self._greet()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell the server that it is free, let what was written last out, and close; takes half a second at most."""
        self._close()

    def _begin(self) -> None:
        self._terms: Terms | None = None
        self._taken = False
        # What was sent last, its number, the number of the last reset, and of the last one whose answer was given up.
        self._sent, self._sequence, self._reset_sequence, self._given_up = b"", 0, 0, 0
        self._last_sequence = self._episode = 0
        self._fresh = False

    @property
    def _realtime(self) -> bool:
        return self._terms is not None and self._terms.realtime_hz is not None

    def _greet(self) -> None:
        self._send(HELLO)
        if not self._wait(self._connect_timeout_s, lambda: self._terms is not None or self._taken):
            assert self._link is not None, "enter the plant first"
            if self._link.refused():
                raise HilError(
                    f"{self._address} refused the key of {secret_file(self._keys, CLIENT)}. The public key in it "
                    "has to lie in the folder of keys of `tfqrl hil-serve`, as NAME.key, when that starts."
                )
            raise HilError(
                f"No answer from {self._address} for {self._connect_timeout_s:g} s. Check that `tfqrl hil-serve` runs "
                f"there and is bound to an address that can be reached from here, that the keys in {self._keys} are "
                "those that it uses, and that both ends have the same version of tfqrl."
            )
        if self._terms is None:
            raise HilError(f"{self._address} serves another client. It is free when that one ends or falls silent.")
        spec, terms = self._spec, self._terms
        if (terms.observation_shape, terms.action_shape, terms.n) != (
            spec.observation.shape,
            spec.action.shape,
            spec.action.n,
        ):
            raise UsageError(
                f"The environment of {self._address} observes {terms.observation_shape} and acts by "
                f"{_action_text(terms.action_shape, terms.n)}; the policy takes {spec.observation.shape} and gives "
                f"{_action_text(spec.action.shape, spec.action.n)}."
            )
        self.seed = terms.seed

    def _refresh(self, timeout_s: float) -> None:
        assert self._link is not None, "enter the plant first"
        for data in self._link.receive(0.0):
            self._take(data)
        if not self._fresh and not self._wait(timeout_s, lambda: self._fresh):
            self._given_up = self._sequence
            raise HilError(f"{self._address} sent no observation for {timeout_s:g} s.")

    def _wait(self, timeout_s: float, done: Any) -> bool:
        """Take in what comes until `done`, sending the last message again now and then; returns whether it is."""
        assert self._link is not None, "enter the plant first"
        began_s = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            until_s = began_s + timeout_s * attempt / ATTEMPTS
            if attempt > 1:
                self.asked_again += 1
                self._hand_over(self._link)
            while arrived := self._link.receive(until_s):
                for data in arrived:
                    self._take(data)
                if done():
                    return True
                if time.monotonic() >= until_s:
                    break
        return False

    def _take(self, data: bytes) -> None:
        try:
            message = decode(data)
            if message.kind == WELCOME:
                # A greeting that was sent again is welcomed again; terms do not change on the way.
                self._terms = self._terms or Terms.from_values(message.values)
                return
        except MessageError:
            self.malformed += 1
            return
        if message.kind == TAKEN:
            self._taken = True
        elif message.kind == OBSERVATION and message.values.size == self._observation.size:
            self._take_observation(message)
        else:
            self.malformed += 1

    def _take_observation(self, message: Message) -> None:
        self.received += 1
        step = message.sequence - self._last_sequence
        if step == 0:
            self.repeated += 1
            return
        if step < 0:
            self.late += 1
            return
        self.lost += step - 1
        self._last_sequence = message.sequence
        # Episodes have numbers, because the observation that ended one may be lost. Those before the reset are over.
        if message.answers >= self._reset_sequence and message.episode > self._episode:
            self._episode = message.episode
            if math.isfinite(message.last_return):
                self._returns.append(message.last_return)
        if message.answers < (self._reset_sequence if self._realtime else self._sequence):
            # An answer that nobody waited for, as to the last action before the failsafe action, is not late.
            self.late += message.answers <= self._given_up
            return
        self._observation = message.values.reshape(self._spec.observation.shape)
        self.observed_ns = message.time_ns
        self._fresh = True

    def _send(self, kind: bytes, values: npt.NDArray[Any] = NO_VALUES) -> None:
        assert self._link is not None, "enter the plant first"
        if kind in (RESET, ACTION):
            self._sequence += 1
        if kind == RESET:
            self._reset_sequence = self._sequence
        if kind == RESET or not self._realtime:
            self._fresh = False
        self._sent = encode(Message(kind, self._sequence, time_ns=time.monotonic_ns(), values=values))
        self._hand_over(self._link)

    def _hand_over(self, link: Link) -> None:
        if not link.send(self._sent):
            self.unsent += 1

    def _close(self) -> None:
        link, self._link = self._link, None
        assert link is not None
        link.send(encode(Message(BYE)))
        link.close()


def _action_text(shape: tuple[int, ...], n: int | None) -> str:
    return f"{shape}" if n is None else f"one of {n}"
