"""How good predictions were, by the ground truth: one module for each task, and what they share.

In: counts and sums of predictions with ground truth. Out: metrics with intervals.
"""
