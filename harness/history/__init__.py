"""Figures over time: an index of the run directories, rules that find declines, the trend page."""
