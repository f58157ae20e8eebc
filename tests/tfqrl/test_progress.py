from pathlib import Path

import pytest

from tfqrl.agents.ppo import PPOConfig
from tfqrl.progress import TrainingProgress
from tfqrl.runs import Run


def test_before_an_episode_has_ended_the_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.create(tmp_path / "run", "ppo", PPOConfig(env="CartPole-v1"))
    for metrics in ({}, {"return": 1.25}):
        with TrainingProgress(run, 20, 0) as progress:
            progress.report(20, metrics)
            progress.report(20, metrics)
    # At the end one line, however often the end is told.
    first, second = capsys.readouterr().err.splitlines()
    assert "no episode has ended yet" in first
    assert "return 1.2" in second
    assert "nan" not in first + second
