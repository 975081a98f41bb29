"""From the caller's array to results: sessions, methods, dispatch over threads."""
