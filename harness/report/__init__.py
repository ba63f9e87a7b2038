"""The report of a run and all that is written beside it, from its records alone."""
