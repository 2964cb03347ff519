"""What people ask of a model's records, and no asset does: rows, and what a cause goes with.

In come a model, windows and a question; out go tables and sentences. Commands and notebooks call
it. It reads the store alone.
"""
