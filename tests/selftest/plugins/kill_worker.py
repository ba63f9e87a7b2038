"""A pytest plugin that kills the process in the middle of the case named by $KILL_CASE, or, where
that is `at the start`, a worker of xdist before it collects.
"""

import os
import signal


def pytest_sessionstart(session):
    if os.environ["KILL_CASE"] == "at the start" and hasattr(session.config, "workerinput"):
        os.kill(os.getpid(), signal.SIGKILL)


def pytest_runtest_call(item):
    if os.environ["KILL_CASE"] in item.nodeid:
        os.kill(os.getpid(), signal.SIGKILL)
