"""The bijectors, one layer a file, and the base class of layers of your own."""

from tfp_invconv.bijectors._base import ParameterBijector
from tfp_invconv.bijectors.act_norm import ActNorm
from tfp_invconv.bijectors.additive_coupling import AdditiveCoupling
from tfp_invconv.bijectors.affine_coupling import AffineCoupling
from tfp_invconv.bijectors.affine_injector import AffineInjector
from tfp_invconv.bijectors.autoregressive_conv import AutoregressiveConv
from tfp_invconv.bijectors.channel_coupling import ChannelCoupling
from tfp_invconv.bijectors.checkerboard_coupling import CheckerboardCoupling
from tfp_invconv.bijectors.cinc_3x3 import CInC3x3
from tfp_invconv.bijectors.condition_encoder import ConditionEncoder
from tfp_invconv.bijectors.conditional_chain import ConditionalChain
from tfp_invconv.bijectors.convolution_coupling import ConvolutionCoupling
from tfp_invconv.bijectors.dct_symmetric_conv import DCTSymmetricConv
from tfp_invconv.bijectors.emerging_conv import EmergingConv
from tfp_invconv.bijectors.householder_qr_1x1 import HouseholderQR1x1
from tfp_invconv.bijectors.mixture_coupling import MixtureCoupling
from tfp_invconv.bijectors.parameter_injector import ParameterInjector
from tfp_invconv.bijectors.partial_channels import PartialChannels
from tfp_invconv.bijectors.periodic_conv import PeriodicConv
from tfp_invconv.bijectors.pointwise_spline import PointwiseSpline
from tfp_invconv.bijectors.quad_coupling import QuadCoupling
from tfp_invconv.bijectors.root_gate import RootGate
from tfp_invconv.bijectors.s_log_gate import SLogGate
from tfp_invconv.bijectors.scan import Scan
from tfp_invconv.bijectors.spectral_scaling import SpectralScaling
from tfp_invconv.bijectors.spline_coupling import SplineCoupling
from tfp_invconv.bijectors.squeeze import Squeeze

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AffineInjector",
    "AutoregressiveConv",
    "CInC3x3",
    "ChannelCoupling",
    "CheckerboardCoupling",
    "ConditionEncoder",
    "ConditionalChain",
    "ConvolutionCoupling",
    "DCTSymmetricConv",
    "EmergingConv",
    "HouseholderQR1x1",
    "MixtureCoupling",
    "ParameterBijector",
    "ParameterInjector",
    "PartialChannels",
    "PeriodicConv",
    "PointwiseSpline",
    "QuadCoupling",
    "RootGate",
    "SLogGate",
    "Scan",
    "SpectralScaling",
    "SplineCoupling",
    "Squeeze",
]
