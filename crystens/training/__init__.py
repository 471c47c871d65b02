"""The tasks train and sample, with all that sees a config."""
