"""Databases of users that are read as landing files are: where a read stands, and what is new.

In: the SQL source of a spec. Out: new rows, and a cursor that moves once they are kept.
"""
