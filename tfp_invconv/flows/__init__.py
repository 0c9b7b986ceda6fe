"""Builders of whole flows: distributions made from the layers."""

from tfp_invconv.flows.conf import conf
from tfp_invconv.flows.glow import CONVOLUTIONS, COUPLINGS, glow

__all__ = ["CONVOLUTIONS", "COUPLINGS", "conf", "glow"]
