"""What a run is worth: as numbers, charts and a page."""
