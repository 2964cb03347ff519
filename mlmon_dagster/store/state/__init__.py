"""The state database: its tables, its one schema, and what each room keeps in it.

In: rows. Out: the same rows to whoever asks next; SQLite or PostgreSQL.
"""
