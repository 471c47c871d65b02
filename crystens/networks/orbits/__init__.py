"""Atoms of orbits in networks: where a space group puts them, and how they move."""
