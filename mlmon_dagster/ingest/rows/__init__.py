"""Which rows are taken in: by their window, by expectations, by what is there already.

In: typed columns. Out: canonical rows, and the others with a reason.
"""
