"""Figures over time: an index of the run directories, the rule that finds declines, the page.

`store` keeps the index (SQLite beside the runs, rebuilt from them at any time), `series` the
figures of one case over time, `drift` what counts as a decline, `page` the trend page.
"""
