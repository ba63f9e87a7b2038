"""A pytest plugin that gives xdist's workers a second to end in place of ten."""

from xdist.workermanage import NodeManager

NodeManager.EXIT_TIMEOUT = 1
