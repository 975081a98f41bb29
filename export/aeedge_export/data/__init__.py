"""Training data: reading files, scaling, corruption, and batches of rows."""

from aeedge_export.data.files import Dataset, read

__all__ = ["Dataset", "read"]
