"""How fast is a bundle on this machine, and may one believe it? What `aeedge bench` does.

`measuring.py` puts a run together; `compare.py` holds two bundles side by side; `text.py` and `page.py` show the
result, which is a plain document (docs/bench-result.md).
"""
