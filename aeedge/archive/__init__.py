"""Archives: folders of Parquet on any file system, encoded, scored and calibrated over by a user's engine.

An archive is cut into parts. A task does one part from beginning to end, on whichever machine, and commits its own
result; an engine only decides where and when. So the same work runs in processes here, on Spark and on Ray.
"""
