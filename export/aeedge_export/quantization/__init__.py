"""The int8 variant: `qdq.py` writes the graph, `calibration.py` finds ranges, `contract.py` says what must be kept,
`choice.py` decides what runs on integers.
"""
