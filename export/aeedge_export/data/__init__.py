"""Training data: reading files, scaling, corruption, and batches of rows."""

from aeedge_export.data.dataset import Dataset
from aeedge_export.data.files import read

__all__ = ["Dataset", "read"]
