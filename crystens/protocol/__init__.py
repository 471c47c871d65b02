"""The field's shared judge of generated crystals, as CDVAE and DiffCSP are judged."""
