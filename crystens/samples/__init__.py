"""Folders of samples: writing, judging and exporting them."""
