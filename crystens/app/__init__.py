"""A page on this machine, for those who do not program: ask a model, look at its crystals, take CIFs home."""
