"""Migrations of the state database; see database.py, which runs them."""
