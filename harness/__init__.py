"""Acceptance tests for image classifiers deployed on Ascend NPUs."""

__version__ = "0.1.0"
