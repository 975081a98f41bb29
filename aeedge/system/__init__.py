"""The machine: what it is, what this process may use of it, and what disturbs a measurement."""
