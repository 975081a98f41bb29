"""Which way a number of samples is run: a policy in microseconds of work, and what it means in rows for one method.

- A few rows run serially, on the calling thread.
- More rows, up to some milliseconds of work, go to onnxruntime's intra-op pool, which shares each operator. Its threads
  look for work for a millisecond after the last, so that they need not be woken.
- Many rows are cut into blocks that stay in cache, shared among worker threads. Waking those takes 20 to 100 µs, but
  then none waits for another between operators.
"""

from __future__ import annotations

import math

from aeedge.record import Record

MIN_BLOCK_ROWS = 64  # smaller products waste the processor
_MOSTLY_CAST = (("Cast", "Gemm"), ("Cast", "Gemm", "Relu"))  # with more layers it hardly matters


class DispatchPolicy(Record):
    """Cutoffs in microseconds of work on one thread; infinite for a route that is not taken.

    The defaults suit processors with two to eight cores; `aeedge tune` finds better ones for a machine and a bundle.

    Attributes:
        pool_from_us: calls with this much work go to the intra-op pool.
        workers_from_us: calls with this much work are cut into blocks for worker threads.
        block_us: work of a block.
        max_rows: the most rows of a block, whatever their work.
        single_on_pool: whether a single row goes to the pool too.
        measure_pool: whether the first call with several rows measures from how many rows on, up to 64, the pool is
            faster: a few rows of a deep network take as long as many of a shallow one.
    """

    pool_from_us: float = 25.0
    workers_from_us: float = 5000.0
    block_us: float = 1000.0
    max_rows: int = 2**20
    single_on_pool: bool = False
    measure_pool: bool = True


SERIAL = DispatchPolicy(math.inf, math.inf, measure_pool=False)


def default_policy(chain: tuple[str, ...]) -> DispatchPolicy:
    """The policy where nothing was tuned, for an encoder of these operators (see onnx_proto.py).

    onnxruntime converts on a pool more slowly than on one thread: twice or, in some minutes, ten times (measured with
    1.32, bytes to float32, two threads). Graphs of which that is a good part are left to worker threads.
    """
    if chain in _MOSTLY_CAST:
        return DispatchPolicy(math.inf, 1000.0, measure_pool=False)
    return DispatchPolicy()


class Cutoffs:
    """A policy in rows, for one method; as long as its time is unknown, single rows alone have a route.

    Attributes:
        pool_from: calls with this many rows go to the pool.
        serial_to: calls without the pool run as one block up to this many rows.
        whole_to: calls on the pool run as one block up to this many rows; more are cut for worker threads.
    """

    __slots__ = ("pool_from", "serial_to", "whole_to")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget them: the time of a row is unknown."""
        self.pool_from, self.serial_to, self.whole_to = math.inf, 1.0, 1.0

    def set(self, policy: DispatchPolicy, row_us: float, has_pool: bool, measured: float = math.inf) -> None:
        """Convert a policy.

        Args:
            policy: in microseconds.
            row_us: microseconds of a row on one thread.
            has_pool: whether there is a pool.
            measured: rows from which on the pool was measured to be faster; it can only lower the policy's cutoff, so
                that a disturbed measurement leaves things as they are.
        """
        self.whole_to = min(_rows(policy.workers_from_us, row_us) - 1, policy.max_rows)
        self.pool_from = max(2.0, min(_rows(policy.pool_from_us, row_us), measured)) if has_pool else math.inf
        self.serial_to = min(self.whole_to, max(MIN_BLOCK_ROWS, _rows(policy.block_us, row_us) - 1))


def block_rows(policy: DispatchPolicy, row_us: float, rows: int, threads: int, fitting: int) -> int:
    """Rows of a block, a power of two: for the policy's work, at least two blocks a thread, and what fits the cache."""
    wanted = int(policy.block_us / row_us) if row_us else fitting
    share = -(-rows // (2 * threads))
    most = min(fitting, policy.max_rows)
    return 1 << (max(1, min(max(min(wanted, share), MIN_BLOCK_ROWS), most)).bit_length() - 1)


def _rows(work_us: float, row_us: float) -> float:
    """The number of rows from which on there is this much work."""
    if work_us == math.inf:
        return math.inf
    return math.ceil(work_us / row_us)
