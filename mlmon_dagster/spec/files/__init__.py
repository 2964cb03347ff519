"""A spec as a file: its YAML, its errors with the lines that they are in, what its keys mean."""
