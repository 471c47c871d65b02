"""Public data sets: download, verification and reading."""
