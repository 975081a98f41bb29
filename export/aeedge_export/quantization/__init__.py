"""The int8 variant: `qdq.py` writes the graph, `calibration.py` finds ranges, `quality_limits.py` measures int8 against
fp32, `choice.py` decides which layers run on integers.
"""
