"""Invertible convolutions and the couplings that go with them, as TFP bijectors."""

from tfp_invconv import data, networks, plots
from tfp_invconv.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    AffineInjector,
    AutoregressiveConv,
    ChannelCoupling,
    CInC3x3,
    ConditionalChain,
    ConditionEncoder,
    ConvolutionCoupling,
    DCTSymmetricConv,
    EmergingConv,
    HouseholderQR1x1,
    PartialChannels,
    PeriodicConv,
    QuadCoupling,
    RootGate,
    Scan,
    SLogGate,
    Squeeze,
)
from tfp_invconv.diagnostics import condition_report
from tfp_invconv.flows import conf, glow
from tfp_invconv.latents import interpolate, join_levels, split_levels
from tfp_invconv.reliability import count_outliers, reconstruction_error
from tfp_invconv.training import EnergyModel, FlowModel, callbacks

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AffineInjector",
    "AutoregressiveConv",
    "CInC3x3",
    "ChannelCoupling",
    "ConditionEncoder",
    "ConditionalChain",
    "ConvolutionCoupling",
    "DCTSymmetricConv",
    "EmergingConv",
    "EnergyModel",
    "FlowModel",
    "HouseholderQR1x1",
    "PartialChannels",
    "PeriodicConv",
    "QuadCoupling",
    "RootGate",
    "SLogGate",
    "Scan",
    "Squeeze",
    "callbacks",
    "condition_report",
    "conf",
    "count_outliers",
    "data",
    "glow",
    "interpolate",
    "join_levels",
    "networks",
    "plots",
    "reconstruction_error",
    "split_levels",
]
