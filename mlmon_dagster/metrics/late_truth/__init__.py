"""Whose rows have ground truth, by when, and what holds of all rows where only some have it."""
