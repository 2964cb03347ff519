"""How landing files and SQL sources are read: one module for each format.

In: a file, or a query. Out: a raw table, and the rows as they were written.
"""
