"""Crystals that are the same."""
