"""Density functional codes: their inputs, their runs on this machine, and what came of them."""
