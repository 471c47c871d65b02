"""A crystal as one site for each orbit of its space group, and images of such lists."""
