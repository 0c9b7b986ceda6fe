"""Keras 3 networks for couplings."""

from tfp_invconv.networks.conv_net import conv_net
from tfp_invconv.networks.mlp import mlp

__all__ = ["conv_net", "mlp"]
