"""Data of a training: splits, order of training, augmentation, and the DataModule that encodes batches."""
