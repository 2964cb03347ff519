"""Pages on the web, read-only: every model, one model, one alert."""
