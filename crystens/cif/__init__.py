"""CIF: text of a crystal, and a crystal of a text."""
