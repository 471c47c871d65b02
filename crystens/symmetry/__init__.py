"""Space groups, Wyckoff positions, and crystals as their orbits."""
