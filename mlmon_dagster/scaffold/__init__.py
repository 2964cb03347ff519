"""A first spec, written from a sample of a model's events."""
