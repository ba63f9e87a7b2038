"""A pytest plugin that gives xdist's workers a second to end in place of ten."""

from xdist.workermanage import NodeManager  # type: ignore[import-untyped] # it has no types

NodeManager.EXIT_TIMEOUT = 1
