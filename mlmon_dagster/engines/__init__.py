"""Where work on parts runs: in this process, or on a cluster that is there already.

A part is rows that can be worked on alone, whose result merges. The work is the same function
everywhere, so where it runs changes no number.
"""
