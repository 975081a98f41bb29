"""The contest of runtimes: nets, contenders, measuring, and what is written about it. Run by `runtimes.py`."""
