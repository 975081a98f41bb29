"""The quality of a run: numbers, charts and an HTML page."""
