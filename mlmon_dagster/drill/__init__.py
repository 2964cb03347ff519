"""Drill: faults of growing size in a copy of a model's healthy windows, and which are noticed."""
