"""Environments by name, alone and in batches (docs/environments.md)."""

from tfqrl.envs.names import import_module, make
from tfqrl.envs.spec import check_fits, control_rate_hz, policy_spec, spec_of, text
from tfqrl.envs.vector import BoolArray, FloatArray, VectorEnv, VectorStep, make_vector

__all__ = [
    "BoolArray",
    "FloatArray",
    "VectorEnv",
    "VectorStep",
    "check_fits",
    "control_rate_hz",
    "import_module",
    "make",
    "make_vector",
    "policy_spec",
    "spec_of",
    "text",
]
