"""Training data: reading files, scaling, corruption, and batches of rows."""
