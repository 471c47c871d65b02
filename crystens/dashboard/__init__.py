"""The W&B dashboard of a project: `python -m crystens.dashboard`."""
