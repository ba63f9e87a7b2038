"""Hands over to the harness."""

pytest_plugins = ["harness.plugin"]
