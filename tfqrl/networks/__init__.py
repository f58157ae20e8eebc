"""Networks and the distributions that their outputs parametrise."""

from tfqrl.networks.actor_critic import actor, critic, gaussian_actor, q_value
from tfqrl.networks.cnn import nature_cnn
from tfqrl.networks.distributions import Categorical, DiagonalGaussian, SquashedGaussian, distribution_of
from tfqrl.networks.host import Acting, HostNetwork, InterpreterNetwork, acting_network
from tfqrl.networks.mlp import mlp
from tfqrl.networks.observers import as_input, as_trained, policy_network, q_network, value_network
from tfqrl.networks.regularization import regularization
from tfqrl.networks.target import update_target

__all__ = [
    "Acting",
    "Categorical",
    "DiagonalGaussian",
    "HostNetwork",
    "InterpreterNetwork",
    "SquashedGaussian",
    "acting_network",
    "actor",
    "as_input",
    "as_trained",
    "critic",
    "distribution_of",
    "gaussian_actor",
    "mlp",
    "nature_cnn",
    "policy_network",
    "q_network",
    "q_value",
    "regularization",
    "update_target",
    "value_network",
]
