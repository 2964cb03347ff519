"""Families of monitors, a module each: what it measures, judges and says, as one record."""
