"""Environments by name, alone and in batches (docs/environments.md)."""

from tfqrl.envs.envpool import EnvPoolVectorEnv
from tfqrl.envs.names import import_module, make
from tfqrl.envs.spec import check_fits, control_rate_hz, policy_spec, spec_of, text
from tfqrl.envs.step import BoolArray, FloatArray, VectorStep
from tfqrl.envs.vector import VectorEnv, make_vector

__all__ = [
    "BoolArray",
    "EnvPoolVectorEnv",
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
