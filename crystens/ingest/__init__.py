"""Reading a source into a store: parsing in worker processes, chunk files, rows."""
