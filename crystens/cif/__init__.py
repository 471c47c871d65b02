"""CIF: reading and writing crystals."""
