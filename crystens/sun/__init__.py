"""Stable, unique, novel: how many samples are new crystals that would stay what they are."""
