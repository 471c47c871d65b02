"""Space groups and Wyckoff positions."""
