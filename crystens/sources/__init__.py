"""The parts of every source: records, entries, rejects, limits, files."""
