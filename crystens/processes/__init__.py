"""Worker processes, threads, results that are kept, progress, and the frame of a command."""
