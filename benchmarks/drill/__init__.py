"""Fault drill: known faults in the traffic of a model whose truth is known, and what is noticed."""
