"""The demo: a model of flight delays, trained on winter and served through the year 2013."""
