"""A plugin that warns everywhere, ends cases that ANOTHER_ENDS names, and fails as the run ends."""

import os
import warnings

import pytest

warnings.warn("planted, at import", DeprecationWarning, stacklevel=1)


def pytest_configure(config):
    config.issue_config_time_warning(pytest.PytestConfigWarning("planted, at configure"), 2)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    warnings.warn("planted, in a case", UserWarning, stacklevel=1)
    if os.environ.get("ANOTHER_ENDS", "no such case") in pyfuncitem.nodeid:
        pytest.fail("planted: it took too long")


def pytest_sessionfinish():
    raise TypeError("planted, at the end")
