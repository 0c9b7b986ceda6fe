"""Keras 3 networks for couplings."""

from tfp_invconv.networks.condition_net import condition_net
from tfp_invconv.networks.conv_net import conv_net
from tfp_invconv.networks.mlp import mlp
from tfp_invconv.networks.residual_net import residual_net

__all__ = ["condition_net", "conv_net", "mlp", "residual_net"]
