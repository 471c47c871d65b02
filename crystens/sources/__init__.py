"""Parts that all sources share: records, entries, rejects, limits, files."""
