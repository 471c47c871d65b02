"""Automatic selection of candidates for density functional theory from generated crystals (the paper's Sec. 6)."""
