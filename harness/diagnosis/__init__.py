"""Diagnosis of a failed accuracy: which stage broke it, and which usual mistake explains it."""
