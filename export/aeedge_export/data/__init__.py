"""From files and arrays to training rows: reading, scaling, corruption."""
