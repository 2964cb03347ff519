"""What is asked of the store beside its tables: sizes, lags, backlogs, free SQL.

In: questions of people and of other rooms. Out: frames and numbers; nothing is written.
"""
