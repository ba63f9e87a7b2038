"""Throughput of every (model, batch size) on the chosen target."""

import pytest


@pytest.mark.throughput
def test_throughput(bench, session, prepared, accept):
    accept(bench.throughput(session, prepared))
