"""Data: sources of crystals, what is set aside and why, splits, and the DataModule that encodes batches."""
