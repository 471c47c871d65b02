"""Optimization of weights in training: optimizer, learning rate, clipping, averages."""
