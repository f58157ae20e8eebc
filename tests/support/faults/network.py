"""What goes wrong between the loop and a simulation on another computer, with a network that the test plays."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fakes import FakeClock

from edge.loop_report import LoopReport
from edge.plants import hil
from edge.plants.hil_messages import (
    ACTION,
    HELLO,
    OBSERVATION,
    RESET,
    TAKEN,
    WELCOME,
    Message,
    Terms,
    decode,
    encode,
)
from edge.safety import Cause
from faults import FAILSAFE, FAULTS, FIRST, GOOD, Fault, Rig, fault


class Network:
    """Stands in for `edge.plants.hil_link.Link`, with a server behind it that steps once with each new action.

    On faulty ticks, `down` is done to the messages that arrive, and `up` to each that is sent (None: it is lost).
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.down: Callable[[list[Message]], list[Message | bytes]] = lambda messages: list(messages)
        self.up: Callable[[bytes], bytes | None] = lambda data: data
        self.room = True
        self.realtime_hz: float | None = None
        self.actions: list[Any] = []
        self._sequence = self._answered = 0
        self._last = Message(OBSERVATION)
        self._waiting: list[Message] = []

    def send(self, data: bytes) -> bool:
        carried = self.up(data) if self.rig.faulty else data
        if carried is None:
            return self.room
        message = decode(carried)
        if message.kind == HELLO:
            spec = self.rig.policy.spec
            terms = Terms(spec.observation.shape, spec.action.shape, spec.action.n, 0, self.realtime_hz)
            self._waiting.append(Message(WELCOME, values=terms.values()))
        if message.kind not in (RESET, ACTION):
            return True
        if message.sequence > self._answered:
            self._answered = message.sequence
            self._sequence += 1
            if message.kind == ACTION:
                self.actions.append(message.values)
            self._last = Message(OBSERVATION, self._sequence, 0, message.sequence, message.time_ns, 0.0, GOOD)
        self._waiting.append(self._last)
        return True

    def receive(self, until_s: float) -> list[bytes]:
        waiting, self._waiting = self._waiting, []
        arrived = self.down(waiting) if self.rig.faulty else waiting
        return [encode(message) if isinstance(message, Message) else message for message in arrived]

    def close(self) -> None:
        pass


def connect(rig: Rig) -> Network:
    """Put a network, and a server at its other end, under the loop."""
    network = Network(rig)
    rig.patch.setattr(hil, "Link", lambda address, keys: network)
    rig.plant = hil.HilPlant("tcp://simulation:5757", rig.policy.spec, keys="keys", timeout_s=0.01)
    rig.plant.network = network
    # Ahead of the real one, by which the plant stamps what it sends.
    rig.clock = FakeClock(time.monotonic_ns() + 10**15)
    return network


def simulation_stands_still(outcome: LoopReport, rig: Rig) -> None:
    np.testing.assert_array_equal(rig.plant.network.actions[-1], FAILSAFE, err_msg="what the server got last")


def arriving(down: Callable[[list[Message]], list[Any]]) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        connect(rig).down = down

    return inject


def each(**fields: Any) -> Callable[[list[Message]], list[Any]]:
    """Every message has other fields."""
    return lambda messages: [dataclasses.replace(message, **fields) for message in messages]


ARRIVALS: tuple[tuple[str, Callable[[list[Message]], list[Any]], Cause], ...] = (
    ("The network loses every observation.", lambda messages: [], Cause.PLANT_ERROR),
    ("The network cuts messages short.", lambda messages: [encode(m)[:-3] for m in messages], Cause.PLANT_ERROR),
    ("What arrives is rubbish.", lambda messages: [b"", b"HL", bytes(70_000), b"\xff" * 64], Cause.PLANT_ERROR),
    (
        "The server has another version of the messages.",
        lambda messages: [b"HL\x02" + encode(m)[3:] for m in messages],
        Cause.PLANT_ERROR,
    ),
    ("The server sends observations of another shape.", each(values=np.zeros(5)), Cause.PLANT_ERROR),
    ("The server sends observations without values.", each(values=np.zeros(0)), Cause.PLANT_ERROR),
    ("The server sends NaN.", each(values=np.array([0.3, np.nan, 60.0])), Cause.NON_FINITE),
    ("The server sends numbers beyond float32.", each(values=np.array([1e300, 1.05, 60.0])), Cause.NON_FINITE),
    ("The server sends an observation out of range.", each(values=np.array([0.3, 1.05, 200.0])), Cause.OUT_OF_RANGE),
    ("The server starts again and counts its messages from 1.", each(sequence=1), Cause.PLANT_ERROR),
    ("The server answers actions of long ago.", each(answers=1), Cause.PLANT_ERROR),
    ("The server repeats its last message for ever.", each(sequence=FIRST), Cause.PLANT_ERROR),
    ("The server gives itself to another client.", each(kind=TAKEN, values=np.zeros(0)), Cause.PLANT_ERROR),
    ("The server speaks like a client.", each(kind=ACTION), Cause.PLANT_ERROR),
    ("The server gives back a time of the future.", each(time_ns=2**62), Cause.BACKWARDS),
    ("The server gives back a time of the past.", each(time_ns=-(2**62)), Cause.BACKWARDS),
)
FAULTS.extend(
    Fault("network", name, arriving(down), cause, check=simulation_stands_still) for name, down, cause in ARRIVALS
)

HARMLESS: tuple[tuple[str, Callable[[list[Message]], list[Any]]], ...] = (
    ("Every message arrives twice: that is no fault.", lambda messages: [m for m in messages for _ in range(2)]),
    (
        "Messages overtake each other: that is no fault.",
        lambda messages: [n for m in messages for n in (m, dataclasses.replace(m, sequence=m.sequence - 1))],
    ),
    (
        "There is much rubbish between the messages: that is no fault.",
        lambda messages: [*[b"\xff" * 64] * 60, *messages, b""],
    ),
)
FAULTS.extend(Fault("network", name, arriving(down), check=simulation_stands_still) for name, down in HARMLESS)


@fault("network", "An observation gets lost on every tick and is asked for again: that is no fault.",
       check=simulation_stands_still)  # fmt: skip
def _(rig: Rig) -> None:
    lost: set[int] = set()

    def lose_first(messages: list[Message]) -> list[Any]:
        if rig.tick in lost:
            return list(messages)
        lost.add(rig.tick)
        return []

    rig.lasting = True
    connect(rig).down = lose_first


# An action that is written at tick 3 is answered at tick 4; at tick 6 it is sent again, and arrives.
@fault("network", "The network loses every action for three ticks.", Cause.PLANT_ERROR, bad=(4, 5),
       check=simulation_stands_still)  # fmt: skip
def _(rig: Rig) -> None:
    connect(rig).up = lambda data: None


@fault("network", "There is no room for actions, for three ticks.", Cause.PLANT_ERROR, bad=(4, 5),
       check=simulation_stands_still)  # fmt: skip
def _(rig: Rig) -> None:
    network = connect(rig)
    network.room, network.up = False, lambda data: None


@fault("network", "The network dies for good: the server has to notice by itself.", Cause.PLANT_ERROR, bad=range(3, 8),
       stopped_by="plant error", exit_code=14, says="sent no observation for 0.01 s")  # fmt: skip
def _(rig: Rig) -> None:
    rig.lasting = True
    network = connect(rig)
    network.up, network.down = lambda data: None, lambda messages: []


@fault("network", "The server does not answer the reset.", bad=(), counts={Cause.PLANT_ERROR: 1},
       stopped_by="plant error", exit_code=14, says="HilError", check=simulation_stands_still)  # fmt: skip
def _(rig: Rig) -> None:
    network = connect(rig)

    def greet_only(messages: list[Message]) -> list[Any]:
        return [message for message in messages if message.kind == WELCOME]

    rig.first, rig.lasting, network.down = -1, True, greet_only


@fault("network", "A server that steps in real time falls silent.", Cause.PLANT_ERROR, check=simulation_stands_still)
def _(rig: Rig) -> None:
    network = connect(rig)
    network.realtime_hz, network.down = 100.0, lambda messages: []


@fault("network", "The network's library fails.", Cause.PLANT_ERROR, says="Context was terminated",
       check=simulation_stands_still)  # fmt: skip
def _(rig: Rig) -> None:
    def fail(messages: list[Message]) -> list[Any]:
        raise RuntimeError("Context was terminated")

    connect(rig).down = fail
