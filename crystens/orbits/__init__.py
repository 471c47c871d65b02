"""Images of crystals as one site for each orbit of their space group."""
