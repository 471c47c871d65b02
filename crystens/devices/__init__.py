"""Accelerators, XLA and weights that are divided among devices."""
