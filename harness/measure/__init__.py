"""Accuracy and throughput of a compiled model on a leased device."""
