"""Training with Keras: the model around a distribution, and callbacks."""

from tfp_invconv.training import callbacks
from tfp_invconv.training.energy_model import EnergyModel
from tfp_invconv.training.flow_model import FlowModel

__all__ = ["EnergyModel", "FlowModel", "callbacks"]
