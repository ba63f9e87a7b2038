"""What every room stands on: errors, stages, locks, processes, progress, files."""
