"""Metrics of images and crystals: one value for each crystal, averaged in one place."""
