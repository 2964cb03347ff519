"""How good predictions are without ground truth: from scores that are calibrated on the baseline.

In: statistics of scores. Out: metrics with bands, which hold what ground truth will say.
"""
