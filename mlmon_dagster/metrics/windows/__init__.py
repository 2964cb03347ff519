"""How windows differ by themselves: their law, their spread, their calendar, rows that return."""
