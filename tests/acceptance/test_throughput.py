"""Throughput of every (model, batch size) on the chosen target."""

import pytest


@pytest.mark.throughput
def test_throughput(measure, accept):
    accept(measure())
