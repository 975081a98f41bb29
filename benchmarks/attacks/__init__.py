"""Attacks on the runtime: each tries something many times, in a process that may hang, crash or run out of memory."""
