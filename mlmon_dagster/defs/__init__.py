"""The only room that knows Dagster: assets, checks, sensors, schedules, component, instance."""
