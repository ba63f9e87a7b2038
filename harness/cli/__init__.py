"""`python -m harness`."""
