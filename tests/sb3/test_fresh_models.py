"""Models that the installed Stable-Baselines3 trains and saves now: `make sb3` runs this, which needs PyTorch."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from fakes import DATA

from converters.export import DeployedPolicy
from converters.sources import sb3

pytest.importorskip("stable_baselines3", reason="trains with it: pip install 'tfqrl[bench]', or `make sb3`")

MAKE = runpy.run_path(str(DATA / "sb3" / "make.py"))


@pytest.mark.parametrize("name", sorted(MAKE["MODELS"]))
def test_a_fresh_model_is_imported_as_it_predicts(name: str, tmp_path: Path) -> None:
    model = MAKE["MODELS"][name]()
    if "frames" in name or "cnn" in name:
        MAKE["spread"](model)
    MAKE["save"](name, model, tmp_path)
    statistics = tmp_path / f"{name}.pkl"
    policy = sb3.load(tmp_path / f"{name}.zip", statistics if statistics.exists() else None)
    observations, expected = MAKE["predictions"](model)
    assert MAKE["varies"](expected, model.action_space)
    actions = DeployedPolicy(policy.network, policy.spec).act(observations)
    if policy.spec.action.discrete:
        np.testing.assert_array_equal(actions, expected)
        return
    span = np.array([max(1.0, high - low) if high is not None and low is not None else 1.0
                     for low, high in zip(policy.spec.action.low, policy.spec.action.high)])  # fmt: skip
    assert (np.abs(actions - expected) / span).max() < 1e-5
