"""Shared protocols for judging generated crystals: those of CDVAE and DiffCSP."""
