"""Distances of windows from their baseline, and whether an unchanged window would be as far.

In: statistics of windows and of a baseline. Out: distances, their nulls, intervals and p-values.
"""
