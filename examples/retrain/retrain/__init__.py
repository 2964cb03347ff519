"""A model that is trained again when its monitoring says so."""
