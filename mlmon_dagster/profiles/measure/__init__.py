"""From profiles to metrics: which statistics each metric of a model needs.

In: stored profiles of windows and of their baseline. Out: frames of metrics.
"""
