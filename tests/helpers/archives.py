"""Archives of results, read and compared, and files of archives, changed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.signals import machine


def result(folder):
    """The rows of an archive of results, in order."""
    files = sorted(Path(folder).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in Path(folder).glob("part-*.parquet")}


def latents(table):
    return np.stack(table["latent"].to_numpy())


def rewrite(file, **changed):
    """Change values of a file: s3={4: None} makes the value of s3 in row 4 null."""
    table = pq.read_table(file)
    for name, values in changed.items():
        column = table[name].to_pylist()
        for row, value in values.items():
            column[row] = value
        kind = table.schema.field(name).type
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column, kind))
    pq.write_table(table, file, row_group_size=128)


def write_recording(file, count, seed=0, **more):
    values = machine(count, seed=seed)
    time = np.arange(count) / 100.0
    pq.write_table(pa.table({"t": time, "x": values[:, 0], "y": values[:, 1], **more}), file, row_group_size=100)
    return values
