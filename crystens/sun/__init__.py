"""Stable, unique and novel samples (S.U.N.)."""
