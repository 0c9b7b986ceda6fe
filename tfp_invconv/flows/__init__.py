"""Builders of whole flows: distributions made from the layers."""

from tfp_invconv.flows.conf import conf
from tfp_invconv.flows.dequantizer import dequantizer
from tfp_invconv.flows.fields import FIELD_CONVOLUTIONS, fields
from tfp_invconv.flows.glow import CONVOLUTIONS, COUPLINGS, glow

__all__ = [
    "CONVOLUTIONS",
    "COUPLINGS",
    "FIELD_CONVOLUTIONS",
    "conf",
    "dequantizer",
    "fields",
    "glow",
]
