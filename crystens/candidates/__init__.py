"""Candidates for density functional theory, from generated crystals and without work by hand (the paper's Sec. 6)."""
