"""From a source to a store: parsing in worker processes, chunk files, rows."""
