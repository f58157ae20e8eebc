import sys
from pathlib import Path

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from edge.errors import UnknownNameError, UsageError, UserError
from tfqrl import envs

OWN = """
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

gymnasium.register("own/Swing-v0", PendulumEnv, max_episode_steps=7)
"""


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("HalfCheetah-v55", UnknownNameError, "Did you mean 'HalfCheetah-v5'"),
        ("nowhere/Robot-v0", UnknownNameError, "Unknown environment"),
        ("toys/Dict-v0", UsageError, "FlattenObservation"),
        ("toys/Image-v0", UsageError, "one dimension"),
        ("toys/FloatFrames-v0", UsageError, "frames .Box of uint8: height, width, channels. are needed"),
        ("toys/Tuple-v0", UsageError, "MultiDiscrete"),
        ("toys/Whole-v0", UsageError, "elements are whole; a Box of floats or Discrete is needed"),
        ("toys/From1-v0", UsageError, "must begin at 0"),
        ("dmcc:cheetah-run", UnknownNameError, "Unknown environment 'dmcc:cheetah-run'"),
        ("dmcc:CartPole-v1", UsageError, "No module named .dmcc."),
        ("ale:Pogn-v5", UnknownNameError, "Did you mean .ale:Pong-v5."),
        ("dmc:cheetah-runn", UnknownNameError, "Did you mean .dmc:cheetah-run."),
        ("dmc:cheetah", UnknownNameError, "'dmc:cheetah'. Did you mean .dmc:cheetah-run."),
        ("dmc:", UnknownNameError, "Unknown environment 'dmc:'"),
        ("dmc", UnknownNameError, "Unknown environment 'dmc'"),
        ("CartPole", UnknownNameError, "Did you mean 'CartPole-v1'"),
        ("", UnknownNameError, "Unknown environment ''"),
        ("toys/Empty-v0", UsageError, "neither can be empty"),
        ("toys/Without-v0", UsageError, "observes None; a vector"),
        ("toys/Unmade-v0", UsageError, "cannot be made here: ValueError: no camera"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        envs.make(name)


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("dmc:cheetah-run", "dm_control", r"dmc:\.\.\. need it: run `pip install 'tfqrl\[dmc\]'`"),
        ("ale:Pong-v5", "ale_py", r"ale:\.\.\. need it: run `pip install 'tfqrl\[atari\]'`"),
        ("ale:Pong-v5", "cv2", r"cv2 is not installed.*`pip install 'tfqrl\[atari\]'`"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    name: str, package: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=message):
        envs.make(name)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_module_beside_the_user_brings_environments_of_their_own(here: Path) -> None:
    (here / "own_swing.py").write_text(OWN)
    with pytest.raises(UnknownNameError, match="own/Swing-v0"):
        envs.make("own/Swing-v0")
    assert envs.spec_of("own/Swing-v0", "own_swing").action.high == (2.0,)
    env = envs.make_vector("own/Swing-v0", 1, seed=0, module="own_swing")
    env.reset()
    assert [bool(env.step(np.zeros((1, 1), np.float32)).done[0]) for _ in range(7)] == [False] * 6 + [True]


def test_a_module_that_cannot_be_imported_is_refused_in_a_sentence(here: Path) -> None:
    with pytest.raises(UsageError, match=f"no module 'own_swnig', neither in {here} nor installed. --env-module takes"):
        envs.make("own/Swing-v0", "own_swnig")
    for text, message in (
        ("import nowhere_to_be_found", "own_broken cannot be imported: ModuleNotFoundError: No module named 'nowhere_"),
        ("1 / 0", "own_broken cannot be imported: ZeroDivisionError"),
        ("def (", "own_broken cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "own_broken cannot be imported: SystemExit: 3"),
    ):
        (here / "own_broken.py").write_text(text)
        with pytest.raises(UserError, match=message):
            envs.make("own/Swing-v0", "own_broken")


@pytest.mark.parametrize("name", ["", ".own_swing", "./own_swing", "own swing", "own_swing.py"])
def test_what_is_not_the_name_of_a_module_is_refused_as_one_that_is_missing(name: str, here: Path) -> None:
    (here / "own_swing.py").write_text(OWN)
    with pytest.raises(UsageError, match=r"There is no module .*takes the name of a module, without \.py"):
        envs.import_module(name)
