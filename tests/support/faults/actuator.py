"""Actuators that refuse, alter, delay or swallow what they are sent, and policies that ask for what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from edge.plants import PlantStoppedError
from edge.plants.gym import GymPlant
from edge.safety import Cause
from faults import FAILSAFE, FAULTS, GOOD, MS, Fault, Rig, fault


def refuse(action: Any) -> None:
    raise OSError(5, "Input/output error")


@fault("actuator", "A motor driver refuses actions, but takes the failsafe action.", Cause.PLANT_ERROR,
       says="OSError: no such angle")  # fmt: skip
def _(rig: Rig) -> None:
    def write(action: Any) -> Any:
        if not np.array_equal(action, FAILSAFE):
            raise OSError("no such angle")
        return action

    rig.at_write(write)


@fault("actuator", "A motor driver refuses everything for three ticks.", Cause.PLANT_ERROR, bad=(3, 4, 5))
def _(rig: Rig) -> None:
    rig.at_write(refuse)


@fault("actuator", "A motor driver refuses everything for good, the last failsafe action too.", bad=range(3, 8),
       counts={Cause.PLANT_ERROR: 6}, stopped_by="plant error", exit_code=14, says="Input/output error")  # fmt: skip
def _(rig: Rig) -> None:
    rig.lasting = True
    rig.at_write(refuse)


def refusing_at_the_end(times: int) -> Callable[[Rig], None]:
    """The last tick's own write goes well; then so many fail."""

    def inject(rig: Rig) -> None:
        rig.first, rig.lasting = 11, True
        calls = 0

        def write(action: Any) -> Any:
            nonlocal calls
            calls += 1
            if 1 < calls <= 1 + times:
                action *= 100  # it has worked on the array already
                refuse(action)
            return action

        rig.at_write(write)

    return inject


FAULTS += [
    Fault("actuator", "The last failsafe action is refused once.", refusing_at_the_end(1), says="plant error, 1 times"),
    Fault(
        "actuator",
        "The last failsafe action is refused twice.",
        refusing_at_the_end(2),
        bad=(),
        counts={Cause.PLANT_ERROR: 1},
        stopped_by="plant error",
        exit_code=14,
        says="plant error, 2 times",
    ),
]


@fault("actuator", "Writing takes longer than allowed.", Cause.PLANT_BLOCKED)
def _(rig: Rig) -> None:
    # The watchdog's thread looks once a second of real time: here it is the loop itself that notices.
    rig.rate_hz, rig.safety["max_block_s"] = 0.1, 4.0

    def write(action: Any) -> Any:
        if not np.array_equal(action, FAILSAFE):
            rig.clock.advance(5000 * MS)
        return action

    rig.at_write(write)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no array")


for words, answer in (
    ("nothing", None),
    ("text", "ok"),
    ("an array of another shape", np.zeros(7)),
    ("NaN", np.full(2, np.nan)),
    ("an object that is no array", Unprintable()),
):
    FAULTS.append(
        Fault(
            "actuator",
            f"Writing answers with {words} instead of what was sent: the log has NaN, and control goes on.",
            lambda rig, answer=answer: rig.at_write(lambda action: answer),  # type: ignore[misc]
        )
    )


@fault("actuator", "The plant changes the array that it was given.")
def _(rig: Rig) -> None:
    def write(action: Any) -> Any:
        action *= 100
        return action

    rig.lasting = True
    rig.at_write(write)


@fault("actuator", "The plant keeps the arrays that it was given and changes them later.")
def _(rig: Rig) -> None:
    kept: list[Any] = []

    def write(action: Any) -> Any:
        for array in kept:
            array[:] = np.nan
        kept.append(action)
        return action

    rig.lasting = True
    rig.at_write(write)


@fault("actuator", "An actuator limits what it is sent by itself; the log says what it really did.")
def _(rig: Rig) -> None:
    rig.lasting = True
    rig.at_write(lambda action: np.clip(action, -0.1, 0.1))


def acting(action: list[float]) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        act = rig.policy.act
        rig.patch.setattr(rig.policy, "act", lambda o: np.array(action, np.float32) if rig.faulty else act(o))

    return inject


FAULTS += [
    Fault("actuator", "The policy asks the actuators for NaN.", acting([np.nan, 0.5]), Cause.BAD_ACTION),
    Fault("actuator", "The policy asks the actuators for infinity.", acting([0.1, np.inf]), Cause.BAD_ACTION),
]


class Arm(gymnasium.Env):  # type: ignore[misc]
    """A simulation that stands still until it breaks."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64)

    rig: Rig

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return GOOD, {}

    def step(self, action: Any) -> Any:
        if self.rig.faulty:
            raise RuntimeError("the simulation is unstable")
        return GOOD, 0.0, False, False, {}


gymnasium.register("faults/Arm-v0", Arm, disable_env_checker=True)


@fault("actuator", "A simulation raises in its steps.", bad=range(3, 8), counts={Cause.PLANT_ERROR: 6},
       stopped_by="plant error", exit_code=14, says="RuntimeError: the simulation is unstable")  # fmt: skip
def _(rig: Rig) -> None:
    rig.lasting = True
    rig.plant = GymPlant("faults/Arm-v0", rig.policy.spec)
    rig.plant._env.unwrapped.rig = rig


def stop() -> None:
    raise PlantStoppedError("the emergency stop is pressed")


STOP = {"stopped_by": "plant stopped", "exit_code": 18, "says": "the emergency stop is pressed"}


@fault("actuator", "The emergency stop is pressed when the plant is read.", Cause.PLANT_STOPPED, bad=(3,), **STOP)
def _(rig: Rig) -> None:
    rig.at_read(stop)


@fault("actuator", "The emergency stop is pressed when an action is written.", Cause.PLANT_STOPPED, bad=(3,), **STOP)
def _(rig: Rig) -> None:
    def write(action: Any) -> Any:
        if not np.array_equal(action, FAILSAFE):
            stop()
        return action

    rig.at_write(write)
