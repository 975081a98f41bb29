"""The runtime comparison: networks, contenders, measurement and tables. Run by `runtimes.py`."""
