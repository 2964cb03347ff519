"""Forgetting ids: in tables, old versions, logs and numbers, with proof that nothing is left.

In: ids. Out: what was rewritten, and where it was looked for.
"""
