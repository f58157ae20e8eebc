from pathlib import Path

import pytest
import toy_envs  # noqa: F401  (registers the toys)

from tfqrl import cli


@pytest.mark.parametrize(
    ("algorithm", "env", "message"),
    [
        ("sac", "CartPole-v1", "sac needs actions that are a vector; the environment acts by one of 2 choices"),
        ("td3", "toys/Unbounded-v0", "give it an action_space whose `low` and `high` are finite"),
        ("ddpg", "toys/Blob-v0", "ddpg needs actions that are a vector"),
        ("d4pg", "CartPole-v1", "d4pg needs actions that are a vector; the environment acts by one of 2 choices"),
        ("sac", "toys/OneSided-v0", "sac needs actions with two bounds each"),
        ("d4pg", "toys/OneSided-v0", "d4pg needs actions with two bounds each"),
        ("td3", "toys/Steered-v0", "td3 learns from vectors; the environment observes"),
        ("sac", "toys/Steered-v0", "Train dqn, a2c or ppo there"),
        ("dqn", "Pendulum-v1", "dqn needs a choice of actions; the environment acts by 1 numbers"),
        ("dqn", "toys/Unbounded-v0", "Train a2c or ppo there"),
        ("dqn", "toys/Steered-v0", "dqn needs a choice of actions"),
        ("dqn", "toys/Small-v0", "The Nature CNN takes frames of at least 36x36 pixels"),
        ("ppo", "toys/Dict-v0", "a vector (Box of one dimension) or frames"),
        ("a2c", "toys/Small-v0", "The Nature CNN takes frames of at least 36x36 pixels"),
        ("ppo", "CartPoole-v1", "CartPole-v1"),
    ],
)
def test_what_an_algorithm_cannot_be_trained_on_is_refused_before_the_run_is_made(
    algorithm: str, env: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", algorithm, "--env", env, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
