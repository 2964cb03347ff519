"""Models whose rows stay in the tables of their owner: what changed there, and the rows of windows.

Nothing is taken in. A look finds the windows whose rows changed; their rows are read, judged as
those of files are, and joined into records, when a window is computed.
"""
