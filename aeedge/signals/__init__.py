"""Signals: recordings cut into windows, live streams, and whether sensors and model can still be believed."""
