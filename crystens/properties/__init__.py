"""Properties of crystals that networks predict."""
