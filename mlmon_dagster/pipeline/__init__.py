"""What the steps of a model do, free of Dagster.

In: a project, a spec, windows. Out: rows in the store, and numbers for whoever shows them.
"""
