"""A plugin that refuses what was collected."""

import pytest


def pytest_collection_modifyitems():
    raise pytest.UsageError("planted: not these")
