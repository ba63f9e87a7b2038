"""Accuracy of every (model, batch size) on the chosen target."""

import pytest


@pytest.mark.accuracy
def test_accuracy(measure, accept):
    accept(measure())
