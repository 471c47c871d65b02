"""Worker processes, threads, cached results, progress bars, and the frame of a command."""
