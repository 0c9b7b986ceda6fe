"""What every part of the package may use: checks, seeds, files, types."""
