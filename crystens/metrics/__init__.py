"""Numbers that judge images and crystals; every crystal keeps its own value, and means are taken in one place."""
