"""Pure functions on tensors: the mathematics under the bijectors."""
