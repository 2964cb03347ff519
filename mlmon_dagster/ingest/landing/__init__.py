"""Which files have landed and are complete, in folders and in object storage.

In: the sources of a spec. Out: candidates, oldest first, and copies to read from.
"""
