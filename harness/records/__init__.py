"""A run on disk: typed lines, one writer, one reader."""
