"""Networks and the distributions that their outputs parametrise."""

from tfqrl.networks.cnn import nature_cnn
from tfqrl.networks.distributions import Categorical, DiagonalGaussian, SquashedGaussian
from tfqrl.networks.host import HostNetwork
from tfqrl.networks.mlp import mlp
from tfqrl.networks.target import update_target

__all__ = [
    "Categorical",
    "DiagonalGaussian",
    "HostNetwork",
    "SquashedGaussian",
    "mlp",
    "nature_cnn",
    "update_target",
]
