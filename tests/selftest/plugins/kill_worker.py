"""A pytest plugin that kills the process in the middle of the case named by $KILL_CASE."""

import os
import signal


def pytest_runtest_call(item):
    if os.environ["KILL_CASE"] in item.nodeid:
        os.kill(os.getpid(), signal.SIGKILL)
