"""Networks and the distributions that their outputs parametrise."""

from tfqrl.networks.actor_critic import actor, critic, q_value
from tfqrl.networks.cnn import nature_cnn
from tfqrl.networks.distributions import Categorical, DiagonalGaussian
from tfqrl.networks.host import HostNetwork
from tfqrl.networks.mlp import mlp

__all__ = ["Categorical", "DiagonalGaussian", "HostNetwork", "actor", "critic", "mlp", "nature_cnn", "q_value"]
