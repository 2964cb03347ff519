"""What the judges of all families share: evidence, the rows they return, words, and a budget.

The judges themselves are in ``families/``, a module each; none of them reads a clock, a store or
the environment.
"""
