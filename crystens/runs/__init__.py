"""Runs side by side: `python -m crystens.runs DIR --out OUT` makes one table and one page of all runs below folders."""
