"""Keras 3 networks for couplings, one kind a file."""

from tfp_invconv.networks.conv_net import conv_net
from tfp_invconv.networks.mlp import mlp

__all__ = ["conv_net", "mlp"]
