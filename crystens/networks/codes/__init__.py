"""Codes in networks: elements, space groups and Wyckoff positions, drawn among those that exist."""
