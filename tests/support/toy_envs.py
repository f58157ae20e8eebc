"""Environments whose right answers are known. Importing this registers them with Gymnasium."""

from typing import Any

import gymnasium
import numpy as np


class Match(gymnasium.Env):
    """One step: the reward is how well the action matches the observation. The best return is 0."""

    def __init__(self, low: float = -1.0, high: float = 1.0, reward_scale: float = 1.0) -> None:
        self.reward_scale = reward_scale
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(low, high, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-0.8, 0.8, 1).astype(np.float32)
        return self.target, {}

    def step(self, action: Any) -> Any:
        middle, half = (
            (self.action_space.high + self.action_space.low) / 2,
            np.ptp([self.action_space.low, self.action_space.high]) / 2,
        )
        reward = -float(((action - middle) / half - self.target)[0] ** 2)
        return self.target, self.reward_scale * reward, True, False, {}


class Choose(gymnasium.Env):
    """Two steps: the first asks for the choice nearest to the observation, the second, without reward, for its memory.

    The reward of 1 comes after the second step, if the first was right and the second repeats it: what is learned has
    to look ahead. The best return is 1.
    """

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.right = int(self.np_random.integers(3))
        self.chosen: int | None = None
        return np.array([self.right - 1, 2], np.float32), {}

    def step(self, action: Any) -> Any:
        if self.chosen is None:
            self.chosen = int(action)
            return np.array([self.right - 1, self.chosen - 1], np.float32), 0.0, False, False, {}
        won = self.chosen == self.right == int(action)
        return np.zeros(2, np.float32), float(won), True, False, {}


class Count(gymnasium.Env):
    """Observes how many steps were made; ends or is cut off after `limit` of them; records its actions."""

    def __init__(self, limit: int = 5, cut_off: bool = False, bad_at: int | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64)
        self.limit, self.cut_off, self.bad_at = limit, cut_off, bad_at

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.start = float(self.np_random.uniform())
        self.count = 0
        return np.array([np.nan if self.bad_at == 0 else 0.0, self.start]), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        ended = self.count >= self.limit
        observation = np.array([self.count, self.start])
        if self.count == self.bad_at:
            observation[0] = np.nan
        return observation, float(action[0]), ended and not self.cut_off, ended and self.cut_off, {}


class Huge(Count):
    """Count with action bounds that are float32's largest number, which is how some environments write "unbounded"."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32)


class Blob(gymnasium.Env):
    """A bright blob drifts through 84x84 pixels; the action moves it left, not at all, or right.

    The reward is 1 where it is left in the middle third, else 0. Observes the last four frames, oldest first, as
    channels; ends after 30 steps, a little earlier or later. The best policy pushes it to the middle: `best`.
    """

    metadata = {"render_modes": [], "render_fps": 15}  # noqa: RUF012  (Gymnasium's own convention)
    SIZE, BLOB = 84, 12

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (self.SIZE, self.SIZE, 4), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.y = (int(place) for place in self.np_random.integers(0, self.SIZE - self.BLOB, 2))
        self.drift = int(self.np_random.choice([-2, 2]))
        self.left = int(self.np_random.integers(25, 36))
        self.stack = np.zeros(self.observation_space.shape, np.uint8)
        return self.look(), {}

    def step(self, action: Any) -> Any:
        assert action in (0, 1, 2)
        self.x = int(np.clip(self.x + self.drift + 4 * (int(action) - 1), 0, self.SIZE - self.BLOB))
        self.left -= 1
        middle = self.x + self.BLOB / 2
        return self.look(), float(self.SIZE / 3 <= middle <= 2 * self.SIZE / 3), False, self.left == 0, {}

    def look(self) -> Any:
        frame = np.zeros((self.SIZE, self.SIZE), np.uint8)
        frame[self.y : self.y + self.BLOB, self.x : self.x + self.BLOB] = 200 + self.left
        # A new array: what was given before is not overwritten.
        self.stack = np.concatenate([self.stack[:, :, 1:], frame[:, :, None]], axis=2)
        return self.stack

    @staticmethod
    def best(frames: Any) -> Any:
        """Actions for frames (n, 84, 84, 4): towards the middle, by where the newest is brightest."""
        x = frames[..., -1].sum(axis=1).argmax(axis=1) + Blob.BLOB // 2
        return np.where(x < Blob.SIZE / 2 - 3, 2, np.where(x > Blob.SIZE / 2 + 3, 0, 1))


class Odd(gymnasium.Env):
    """Has whatever spaces it is given."""

    def __init__(self, observation: Any, action: Any) -> None:
        self.observation_space, self.action_space = observation, action


class Failing(Match):
    """Match whose `reset` or `step` raises, returns too little, or gives what is no number."""

    def __init__(self, fault: str) -> None:
        if fault == "init":
            raise ValueError("no camera")
        super().__init__()
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        if self.fault == "reset":
            raise ValueError("no link")
        return observation if self.fault == "short reset" else (observation, info)

    def step(self, action: Any) -> Any:
        observation, reward, *ended = super().step(action)
        if self.fault == "step":
            raise ValueError("the motor is on fire")
        if self.fault == "short step":
            return observation, reward, False, {}
        return observation, np.zeros(2) if self.fault == "reward" else reward, *ended


def register() -> None:
    spaces = gymnasium.spaces
    vector = spaces.Box(-1, 1, (2,))
    gymnasium.register("toys/Match-v0", Match)
    gymnasium.register("toys/Choose-v0", Choose)
    gymnasium.register("toys/MatchTimes100-v0", Match, kwargs={"reward_scale": 100.0})
    gymnasium.register("toys/Unbounded-v0", Huge)
    gymnasium.register("toys/Shifted-v0", Match, kwargs={"low": 3.0, "high": 7.0})
    gymnasium.register("toys/Count-v0", Count)
    gymnasium.register("toys/CutOff-v0", Count, kwargs={"cut_off": True})
    gymnasium.register("toys/Diverges-v0", Count, kwargs={"bad_at": 3})
    gymnasium.register("toys/Blob-v0", Blob)
    gymnasium.register("toys/Dict-v0", Odd, kwargs={"observation": spaces.Dict({"a": vector}), "action": vector})
    gymnasium.register("toys/Image-v0", Odd, kwargs={"observation": spaces.Box(0, 1, (4, 4)), "action": vector})
    gymnasium.register(
        "toys/FloatFrames-v0",
        Odd,
        kwargs={"observation": spaces.Box(0, 1, (84, 84, 4), np.float32), "action": spaces.Discrete(3)},
    )
    gymnasium.register(
        "toys/Small-v0",
        Odd,
        kwargs={"observation": spaces.Box(0, 255, (32, 32, 1), np.uint8), "action": spaces.Discrete(3)},
    )
    gymnasium.register(
        "toys/Bytes-v0", Odd, kwargs={"observation": spaces.Box(0, 255, (3,), np.uint8), "action": vector}
    )
    one_sided = spaces.Box(np.float32([-1, 0]), np.float32([1, np.inf]))
    gymnasium.register("toys/OneSided-v0", Odd, kwargs={"observation": vector, "action": one_sided})
    gymnasium.register(
        "toys/Steered-v0", Odd, kwargs={"observation": spaces.Box(0, 255, (84, 84, 4), np.uint8), "action": vector}
    )
    gymnasium.register("toys/Whole-v0", Odd, kwargs={"observation": vector, "action": spaces.Box(0, 9, (2,), np.int64)})
    gymnasium.register("toys/Tuple-v0", Odd, kwargs={"observation": vector, "action": spaces.MultiDiscrete([2, 2])})
    nothing = spaces.Box(-1, 1, (0,))
    gymnasium.register("toys/Empty-v0", Odd, kwargs={"observation": nothing, "action": vector})
    gymnasium.register("toys/Without-v0", Odd, kwargs={"observation": None, "action": vector})
    gymnasium.register("toys/Unmade-v0", Failing, kwargs={"fault": "init"})
    for fault in ("reset", "short reset", "step", "short step", "reward"):
        name = "".join(word.title() for word in fault.split())
        gymnasium.register(f"toys/Failing{name}-v0", Failing, kwargs={"fault": fault})
    gymnasium.register("toys/DivergesAtOnce-v0", Count, kwargs={"bad_at": 0})
    gymnasium.register("toys/From1-v0", Odd, kwargs={"observation": vector, "action": spaces.Discrete(3, start=1)})


register()
