"""Callbacks of a training run: losses, samples, random states, checkpoint entries, progress."""
