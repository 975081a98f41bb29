"""Less work after training: `units.py` finds which hidden units can go, `narrowing.py` removes them, `factors.py`
splits weight matrices, `path.py` orders these steps, `distilling.py` trains, `choice.py` decides how far to go.
"""
