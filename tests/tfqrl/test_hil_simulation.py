"""The plant and the simulation of hardware in the loop, without a network: every message's fate is the test's."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)
from fakes import DATA, HurriedClock
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError
from edge.loop import ControlLoop
from edge.plants.gym import GymPlant
from edge.plants.hil import HilError, HilPlant
from edge.plants.hil_messages import ACTION, BYE, HELLO, OBSERVATION, RESET, TAKEN, WELCOME, Message, decode, encode
from edge.policy import Policy
from tfqrl import envs
from tfqrl.hil_simulation import HOLD_S, SILENCE_S, Simulation

COUNT = PolicySpec(
    ObservationSpec((2,), (None, None), (None, None)), ActionSpec((2,), (-2.0, 0.0), (2.0, 1.0)), None, None
)
S = 1_000_000_000

# What can happen to a message.
PASS, DROP, TWICE, HOLD = "pass", "drop", "twice", "hold"


class Wire:
    """In place of `Link`: hands messages to a simulation, and its answers back, each as `fates` say, then as they are.

    A held message comes after the next one of its direction. Waiting for what does not come takes no time.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.up: list[str] = []
        self.down: list[str] = []
        self.held: dict[str, list[bytes]] = {"up": [], "down": []}
        self.arrived: list[bytes] = []
        self.room = True
        self.delivered = 0

    def __call__(self, address: str, keys: Path) -> "Wire":
        return self

    def send(self, data: bytes) -> bool:
        if self.room:
            for one in self._fate("up", self.up, data):
                for _, reply in self.simulation.receive(b"device", one, 0):
                    self.arrived += self._fate("down", self.down, reply)
        return self.room

    def receive(self, until_s: float) -> list[bytes]:
        arrived, self.arrived = self.arrived, []
        self.delivered += sum(data[3:4] == OBSERVATION for data in arrived)
        return arrived

    def close(self) -> None:
        self.up = self.down = []

    def _fate(self, way: str, fates: list[str], data: bytes) -> list[bytes]:
        fate = fates.pop(0) if fates else PASS
        if fate == HOLD:
            self.held[way].append(data)
            return []
        held, self.held[way] = self.held[way], []
        return {PASS: [data], DROP: [], TWICE: [data, data]}[fate] + held


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[HilPlant, Wire, Simulation]]:
    """A plant that is wired to a simulation."""

    def wire_up(env: str = "toys/Count-v0", spec: PolicySpec = COUNT, **options: Any) -> Any:
        simulation = Simulation(envs.make(env), say=lambda line: None, **options)
        wire = Wire(simulation)
        monkeypatch.setattr("edge.plants.hil.Link", wire)
        return HilPlant("tcp://wire", spec, keys=""), wire, simulation

    return wire_up


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def test_each_action_is_a_step_and_an_ended_episode_begins_again(wired: Any) -> None:
    plant, _, simulation = wired(seed=1)
    with plant:
        plant.reset()
        counts = []
        for i in range(7):
            counts.append(plant.read()[0])
            assert plant.read()[0] == counts[-1], "reading steps nothing"
            action = np.array([i / 4, 0.0], np.float32)
            assert plant.write(action) is action
        assert plant.returns == [(0 + 1 + 2 + 3 + 4) / 4]
    assert counts == [0, 1, 2, 3, 4, 0, 1]
    assert simulation.returns == plant.returns
    assert plant.seed == 1
    assert (nonzero(plant.counts()), nonzero(simulation.counts())) == ({"received": 8}, {})


def test_the_same_seed_gives_the_same_returns_as_the_plant_gym(wired: Any) -> None:
    policy = Policy.load(DATA / "lever-int8.tflite")
    returns = []
    for plant in (GymPlant("Pendulum-v1", policy.spec, seed=3), wired("Pendulum-v1", policy.spec, seed=3)[0]):
        with plant:
            # 500 steps with the failsafe action at the end; an episode has 200.
            report = ControlLoop(policy, plant, rate_hz=100, clock=HurriedClock()).run(duration_s=4.99)
            assert (report.ticks, report.failsafes) == (499, {})
            returns.append(list(plant.returns))
    assert len(returns[0]) == 2
    assert returns[0] == returns[1]


def test_an_episode_that_ends_with_the_last_action_is_told_of(wired: Any) -> None:
    plant, _, _ = wired()
    with plant:
        plant.reset()
        for _ in range(5):
            plant.write(np.array([1.0, 0.0]))
        assert plant.returns == [5.0]
    assert plant.returns == [5.0]


def test_a_lost_answer_is_asked_for_again_and_steps_nothing(wired: Any) -> None:
    plant, wire, simulation = wired()
    with plant:
        plant.reset()
        wire.down = [DROP, DROP]
        plant.write(np.zeros(2))
        assert plant.read()[0] == 1
        plant.write(np.zeros(2))
        assert plant.read()[0] == 2
    assert nonzero(plant.counts()) == {"received": 3, "asked_again": 2}
    assert nonzero(simulation.counts()) == {"repeated": 2}
    assert simulation.steps == 2


def test_a_lost_action_is_sent_again(wired: Any) -> None:
    plant, wire, simulation = wired()
    with plant:
        plant.reset()
        wire.up = [DROP]
        plant.write(np.zeros(2))
        assert plant.read()[0] == 1
    assert nonzero(plant.counts()) == {"received": 2, "asked_again": 1}
    assert nonzero(simulation.counts()) == {}


def test_an_answer_that_never_comes_is_an_error_and_the_next_is_waited_for(wired: Any) -> None:
    plant, wire, simulation = wired()
    with plant:
        plant.reset()
        wire.up, wire.down = [DROP, DROP], [DROP]
        plant.write(np.zeros(2))
        with pytest.raises(HilError, match=r"tcp://wire sent no observation for 0\.1 s"):
            plant.read()
        plant.write(np.zeros(2))
        assert plant.read()[0] == 2
    assert nonzero(plant.counts()) == {"received": 2, "asked_again": 2, "lost": 1}
    assert nonzero(simulation.counts()) == {}


def test_an_action_that_never_arrives_is_counted_by_the_server(wired: Any) -> None:
    plant, wire, simulation = wired()
    with plant:
        plant.reset()
        wire.up = [DROP] * 3
        plant.write(np.zeros(2))
        with pytest.raises(HilError):
            plant.read()
        plant.write(np.zeros(2))
        assert plant.read()[0] == 1
    assert nonzero(simulation.counts()) == {"lost": 1}
    assert nonzero(plant.counts()) == {"received": 2, "asked_again": 2}


@pytest.mark.parametrize(("first", "lost"), [(True, 0), (False, 1)])
def test_an_answer_that_was_given_up_is_late_and_not_acted_on(wired: Any, first: bool, lost: int) -> None:
    plant, wire, simulation = wired()
    with plant:
        plant.reset()
        wire.up, wire.down = [PASS, DROP, DROP], [HOLD]
        plant.write(np.zeros(2))
        with pytest.raises(HilError):
            plant.read()
        if first:
            wire.arrived += wire.held["down"]
            wire.held["down"] = []
        plant.write(np.zeros(2))
        assert plant.read()[0] == 2
    # Where it comes after the next one, it had been counted as lost by then.
    assert (plant.late, plant.lost, plant.received) == (1, lost, 3)
    assert simulation.steps == 2


def test_repeated_and_overtaken_messages_are_dropped_in_both_directions(wired: Any) -> None:
    plant, wire, simulation = wired()
    with plant:
        plant.reset()
        wire.up, wire.down = [TWICE], [TWICE, TWICE]
        plant.write(np.zeros(2))
        assert plant.read()[0] == 1
        assert (plant.repeated, simulation.repeated) == (3, 1)
        wire.up = [HOLD]
        plant.write(np.zeros(2))
        plant.write(np.zeros(2))
        assert plant.read()[0] == 2, "the one that was overtaken steps nothing"
    assert nonzero(simulation.counts()) == {"repeated": 1, "lost": 1, "late": 1}


def test_messages_for_which_there_is_no_room_are_counted(wired: Any) -> None:
    plant, wire, _ = wired()
    with plant:
        plant.reset()
        wire.room = False
        plant.write(np.zeros(2))
        with pytest.raises(HilError):
            plant.read()
        assert plant.unsent == 3
        wire.room = True


def test_observations_are_no_younger_than_they_say(wired: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, _, _ = wired()
    with plant:
        for now_ns in (100, 200, 300):
            monkeypatch.setattr("edge.plants.hil.time.monotonic_ns", lambda now_ns=now_ns: now_ns)
            plant.reset() if now_ns == 100 else plant.write(np.zeros(2))
            plant.read()
            assert plant.observed_ns == now_ns


fates = st.lists(st.sampled_from([PASS, PASS, PASS, DROP, TWICE, HOLD]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(fates, fates)
def test_whatever_is_lost_late_or_repeated_each_action_steps_once_and_old_answers_are_not_used(
    up: list[str], down: list[str]
) -> None:
    simulation = Simulation(envs.make("toys/Count-v0"), say=lambda line: None)
    simulation._env.unwrapped.limit = 10**6
    wire = Wire(simulation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.plants.hil.Link", wire)
        plant = HilPlant("tcp://wire", COUNT, keys="")
        with plant:
            plant.reset()
            wire.up, wire.down = list(up), list(down)
            for _ in range(30):
                plant.write(np.zeros(2))
                try:
                    observation = plant.read()
                except HilError:
                    continue
                assert observation[0] == simulation.steps, "an old observation"
            wire.up, wire.down = [], []
            wire.held = {"up": [], "down": []}
            plant.write(np.zeros(2))
            assert plant.read()[0] == simulation.steps
        # Each of the 31 actions stepped once, unless it never arrived in time.
        assert simulation.steps == 31 - simulation.lost
        # One observation by the reset and one per step: what was not lost arrived, and what else did was counted.
        assert plant.received == wire.delivered
        overtaken = plant.received - plant.repeated - (1 + simulation.steps - plant.lost)
        assert 0 <= overtaken <= plant.late


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.binary(max_size=80)
        | st.builds(
            lambda kind, sequence, answers, values: encode(
                Message(kind, sequence, 1, answers, 0, 0.5, np.array(values, np.float64))
            ),
            st.sampled_from([WELCOME, TAKEN, OBSERVATION, ACTION]),
            st.integers(0, 5) | st.integers(0, 2**64 - 1),
            st.integers(0, 5) | st.integers(0, 2**64 - 1),
            st.lists(st.floats(), min_size=2, max_size=6),
        ),
        max_size=30,
    )
)
def test_whatever_a_server_says_the_plant_gives_an_observation_of_its_shape_or_its_error(messages: list[bytes]) -> None:
    wire = Wire(Simulation(envs.make("toys/Count-v0"), say=lambda line: None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.plants.hil.Link", wire)
        with HilPlant("tcp://wire", COUNT, keys="") as plant:
            plant.reset()
            for message in messages:
                plant.write(np.zeros(2))
                wire.arrived.insert(0, message)
                with contextlib.suppress(HilError):
                    assert plant.read().shape == (2,)


def test_a_plant_that_is_entered_again_begins_again(wired: Any) -> None:
    plant, _, simulation = wired()
    for _ in range(2):
        with plant:
            plant.reset()
            plant.write(np.zeros(2))
            assert plant.read()[0] == 1
    assert nonzero(plant.counts()) == {"received": 4}
    assert nonzero(simulation.counts()) == {}


# The simulation alone.


def hello(simulation: Simulation, peer: bytes = b"a", now_ns: int = 0) -> bytes:
    ((to, data),) = simulation.receive(peer, encode(Message(HELLO)), now_ns)
    assert to == peer
    return decode(data).kind


def tell(simulation: Simulation, kind: bytes, sequence: int, values: Any = (), now_ns: int = 0) -> list[Message]:
    data = encode(Message(kind, sequence, time_ns=7, values=np.array(values, np.float64)))
    return [decode(reply) for _, reply in simulation.receive(b"a", data, now_ns)]


@pytest.fixture
def count() -> Simulation:
    return Simulation(envs.make("toys/Count-v0"), say=lambda line: None)


def test_one_client_is_served_and_another_when_it_has_left_or_is_silent(count: Simulation) -> None:
    assert hello(count, b"a") == WELCOME
    assert hello(count, b"b") == TAKEN
    assert count.receive(b"b", encode(Message(RESET, 1)), 0) == []
    assert count.receive(b"b", encode(Message(BYE)), 0) == []
    assert (count.refused, count.clients) == (3, 1)
    tell(count, BYE, 0)
    assert hello(count, b"b", S) == WELCOME
    silent_ns = S + round(SILENCE_S * S)
    assert hello(count, b"a", silent_ns) == TAKEN
    assert hello(count, b"a", silent_ns + 1) == WELCOME
    assert count.clients == 3


def test_a_silent_client_is_given_up_without_another_asking(count: Simulation) -> None:
    hello(count)
    assert len(tell(count, RESET, 1)) == 1
    assert count.advance(round(SILENCE_S * S) + 1) == []
    assert tell(count, ACTION, 2, [0, 0]) == []
    assert count.refused == 1


def test_a_new_client_begins_with_the_seed_again(count: Simulation) -> None:
    starts = []
    for _ in range(2):
        hello(count)
        starts.append(tell(count, RESET, 1)[0].values[1])
        tell(count, ACTION, 2, [0, 0])
        tell(count, BYE, 0)
    assert starts[0] == starts[1]


@pytest.mark.parametrize(
    ("kind", "values"),
    [(ACTION, [0]), (ACTION, [0, 0, 0]), (ACTION, [np.nan, 0]), (ACTION, [np.inf, 0]), (OBSERVATION, [0, 0])],
)
def test_what_is_no_action_steps_nothing(count: Simulation, kind: bytes, values: list[float]) -> None:
    hello(count)
    tell(count, RESET, 1)
    assert tell(count, kind, 2, values) == []
    assert (count.malformed, count.steps) == (1, 0)


def test_an_action_before_the_reset_steps_nothing(count: Simulation) -> None:
    hello(count)
    assert tell(count, ACTION, 1, [0, 0]) == []
    assert (count.malformed, count.steps) == (1, 0)


def test_actions_are_clipped_to_the_bounds_as_an_actuator_would() -> None:
    env = envs.make("toys/Count-v0")
    simulation = Simulation(env, say=lambda line: None)
    hello(simulation)
    tell(simulation, RESET, 1)
    for i in range(5):
        tell(simulation, ACTION, 2 + i, [1e300, -1e300])
    # Count pays its first action, whose bound is 2.
    assert simulation.returns == [10.0]


def test_choices_are_whole_numbers_within_their_range() -> None:
    simulation = Simulation(envs.make("CartPole-v1"), say=lambda line: None)
    hello(simulation)
    tell(simulation, RESET, 1)
    for values in ([2], [-1], [0.5], [np.nan], [np.inf], [], [0, 1]):
        assert tell(simulation, ACTION, 2, values) == []
    assert (simulation.malformed, simulation.steps) == (7, 0)
    assert len(tell(simulation, ACTION, 2, [1])) == 1


def test_a_simulation_that_diverges_says_so_to_the_policys_safety() -> None:
    simulation = Simulation(envs.make("toys/Diverges-v0"), say=lambda line: None)
    hello(simulation)
    tell(simulation, RESET, 1)
    observations = [tell(simulation, ACTION, 2 + i, [0, 0])[0].values[0] for i in range(3)]
    np.testing.assert_array_equal(observations, [1, 2, np.nan])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.builds(
            lambda kind, sequence, values: encode(Message(kind, sequence, values=np.array(values, np.float64))),
            st.sampled_from([HELLO, RESET, ACTION, BYE, WELCOME, OBSERVATION]),
            st.integers(0, 5) | st.integers(0, 2**64 - 1),
            st.lists(st.floats(), max_size=3),
        ),
        max_size=30,
    )
)
def test_no_messages_crash_the_simulation_or_get_more_than_one_answer(messages: list[bytes]) -> None:
    simulation = Simulation(envs.make("Pendulum-v1"), say=lambda line: None)
    hello(simulation)
    for message in messages:
        assert len(simulation.receive(b"a", message, 0)) <= 1


def test_in_real_time_steps_come_at_their_rate_with_the_newest_action_and_zero_after_a_silence() -> None:
    env = gymnasium.make("toys/Count-v0", limit=10**6, disable_env_checker=True)
    actions: list[float] = []
    step = env.unwrapped.step
    env.unwrapped.step = lambda action: (actions.append(float(action[0])), step(action))[1]  # type: ignore[method-assign]
    simulation = Simulation(env, realtime_hz=10.0, say=lambda line: None)
    hello(simulation)
    assert simulation.advance(S) == [], "nothing moves before the reset"
    ((observation),) = tell(simulation, RESET, 1, now_ns=S)
    assert observation.sequence == 1
    assert simulation.advance(S + S // 10 - 1) == []
    assert tell(simulation, ACTION, 2, [0.5, 0.0], now_ns=S + 1) == [], "an action is not answered by itself"
    assert tell(simulation, ACTION, 3, [1.0, 0.0], now_ns=S + 2) == []
    now_ns = S
    sent = []
    for _ in range(8):
        now_ns += S // 10
        sent += [decode(data) for _, data in simulation.advance(now_ns)]
    assert [message.sequence for message in sent] == list(range(2, 10))
    assert {(message.answers, message.time_ns) for message in sent} == {(3, 7)}
    held = round(HOLD_S * 10)
    assert actions == [1.0] * held + [0.0] * (8 - held)


def test_steps_in_real_time_that_come_too_late_are_skipped_and_counted() -> None:
    simulation = Simulation(envs.make("toys/Count-v0"), realtime_hz=10.0, say=lambda line: None)
    hello(simulation)
    tell(simulation, RESET, 1)
    assert len(simulation.advance(S // 10 + S // 3)) == 1
    assert (simulation.steps, simulation.overruns) == (1, 3)
    assert simulation.due_ns == S // 2


def test_in_real_time_the_newest_observation_is_read_and_none_twice(wired: Any) -> None:
    plant, wire, simulation = wired(realtime_hz=10.0)

    def step(n: int) -> None:
        for _ in range(n):
            wire.arrived += [data for _, data in simulation.advance(simulation.due_ns or 0)]

    with plant:
        plant.reset()
        assert plant.read()[0] == 0
        step(3)
        assert plant.read()[0] == 3
        with pytest.raises(HilError):
            plant.read()
        plant.write(np.array([1.0, 0.0]))
        step(2)
        assert plant.read()[0] == 0, "the episode ended after five"
        step(1)
        del wire.arrived[-1]
        step(1)
        assert plant.read()[0] == 2
        assert plant.returns == [2.0]
    assert (plant.lost, plant.late) == (1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": -1}, "--seed must lie in"), ({"realtime_hz": 0.0}, "not possible"), ({"realtime_hz": 1e9}, "not poss")],
)
def test_numbers_that_make_no_sense_are_refused(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Simulation(envs.make("toys/Count-v0"), **options)


@pytest.mark.parametrize(
    ("env", "spec", "message"),
    [
        ("Pendulum-v1", COUNT, r"observes \(3,\) and acts by \(1,\); the policy takes \(2,\) and gives \(2,\)"),
        ("CartPole-v1", COUNT, r"observes \(4,\) and acts by one of 2"),
    ],
)
def test_another_environment_than_the_policys_is_refused_before_anything_moves(
    wired: Any, env: str, spec: PolicySpec, message: str
) -> None:
    plant, _, simulation = wired(env, spec)
    with pytest.raises(UsageError, match=message), plant:
        raise AssertionError
    assert hello(simulation, b"other") == WELCOME, "the server is free again"


def test_camera_frames_are_refused_at_both_ends(tmp_path: Path) -> None:
    frames = PolicySpec(ObservationSpec((84, 84, 4), (), (), "uint8"), ActionSpec((), (), (), 3), None, None)
    with pytest.raises(UsageError, match="camera frames, 84x84x4 bytes, and the plant hil"):
        HilPlant("tcp://127.0.0.1:5757", frames, keys=tmp_path)
    with pytest.raises(UsageError, match=r"Blob.*observes camera frames; a message carries numbers"):
        Simulation(envs.make("toys/Blob-v0"))
