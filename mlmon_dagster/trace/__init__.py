"""Why a metric changed.

In come statistics of two sets of windows, or rows whose columns are codes; out go the parts of the
change, each with what chance alone could make it: slices, pairs of slices, decisions, the scores'
law against their meaning, single windows, and searched slices. Nothing here reads or writes.
"""
