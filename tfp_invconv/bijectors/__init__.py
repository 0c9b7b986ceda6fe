"""The bijectors, one layer a file."""
