"""Folders of samples: written, judged, exported."""
