"""The named tables that people ask for: each is one question to the store, declared once."""
