"""From cells as written to cells of the declared types: columns, numbers, times, ids.

In: a raw table and the declared columns. Out: typed columns, and what is wrong with which rows.
"""
