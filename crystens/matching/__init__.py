"""Finding crystals that are the same."""
