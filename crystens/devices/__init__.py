"""Accelerators, XLA, and sharding of weights over devices."""
