"""Migrations of the state database; see state.py, which runs them."""
