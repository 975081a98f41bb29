"""What `aeedge bench` does: measure latency and throughput of a bundle, and what may invalidate the numbers.

`measuring.py` runs everything; `compare.py` compares two bundles; `text.py` and `page.py` show the result, which is a
document of plain values (docs/reference/json-outputs.md).
"""
