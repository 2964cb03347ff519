"""Baselines as they are kept: fitted, promoted, and the files that hold them.

In: baselines that profiles/ fitted. Out: the one in force for a window.
"""
