"""Bins of columns: fitted on a baseline, kept with it, and read back.

In: order statistics of columns. Out: binnings under which windows are counted.
"""
