"""The tasks train and sample, and everything that reads a config."""
