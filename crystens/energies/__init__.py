"""Energies of crystals by potentials, and their distance to a hull."""
