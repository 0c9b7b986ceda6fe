"""Pure functions on tensors: the mathematics of the bijectors."""
