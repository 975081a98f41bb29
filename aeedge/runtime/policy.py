"""Which way a number of rows is run, as borders in microseconds of work."""

from __future__ import annotations

import math

from aeedge.record import Record

_CONVERTING = (("Cast", "Gemm"), ("Cast", "Gemm", "Relu"))  # with more layers it hardly matters


class Schedule(Record):
    """Where the borders lie, in microseconds of work on one thread; infinite for a way that is not taken.

    The defaults suit processors with two to eight cores; `aeedge tune` finds better ones for a machine and a bundle.

    Attributes:
        pool_from: calls with so much work go to onnxruntime's pool.
        lanes_from: ... are cut into blocks for our own threads.
        block: work of a block.
        most_rows: rows of a block, whatever their work.
        single_on_pool: whether a row or a few go to the pool too.
    """

    pool_from: float = 25.0
    lanes_from: float = 5000.0
    block: float = 1000.0
    most_rows: int = 2**20
    single_on_pool: bool = False


def default_schedule(chain: tuple[str, ...]) -> Schedule:
    """The borders where nothing was tuned, for an encoder of these operators (see onnxfile.py).

    onnxruntime converts on a pool more slowly than on one thread: twice or, in some minutes, ten times (measured with
    1.32, bytes to float32, two threads). Graphs of which that is a good part are left to threads of our own.
    """
    return Schedule(pool_from=math.inf, lanes_from=1000.0) if chain in _CONVERTING else Schedule()
