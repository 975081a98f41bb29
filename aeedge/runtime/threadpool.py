"""Worker threads that share blocks of rows. They are started when first needed, and sleep when there is no work.

Why not concurrent.futures: its locks are not reentrant, so a signal handler that interrupts it deadlocks; Ctrl-C may
leave them taken for ever; and it refuses work while the interpreter ends.

A signal handler may raise between any two steps of the calling thread, which then leaves its call. What holds all the
same: a call ends only when no worker is at its blocks any more, so that none touches the caller's arrays afterwards;
and no worker is lost, because none is ever taken from anywhere. A call asks a worker for help by leaving itself there
and waking it. A worker that is woken looks whether the call is still on; that it was woken in vain does no harm, nor
that two calls ask the same one: a call needs no help to get done.

Traps of the platform: a forked child has none of its parent's threads, only the memory of them, so the process id is
compared before they are used. Linux wakes a thread on the CPU where it slept, which may be the caller's, where both
would take turns; so workers are kept off that CPU. A thread that is not a daemon keeps a program from ending.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence

from aeedge.errors import InputError, of_system
from aeedge.system.limits import other_cpus


class _Call:
    """Blocks of one call, and who is at them.

    Args:
        fill: does the block that begins at a row.
        starts: beginnings of the blocks.
    """

    def __init__(self, fill: Callable[[int], None], starts: Sequence[int]) -> None:
        self._fill, self._todo = fill, deque(starts)
        self._inside: list[None] = []  # one for each worker that is at it
        self._left = threading.Lock()  # free once a worker has left
        self._left.acquire()
        self.failures: list[tuple[int, BaseException]] = []
        self.over = False

    def work(self, caught: type[BaseException]) -> None:
        """Do blocks until none is left, one failed or the call is over; errors that are `caught` become failures."""
        fill, todo = self._fill, self._todo
        while todo and not self.failures and not self.over:
            try:
                start = todo.popleft()
            except IndexError:
                return  # another thread took the last block
            try:
                fill(start)
            except caught as error:  # raised on the calling thread
                self.failures.append((start, error))

    def help(self) -> None:
        """A worker's part. It is inside before it looks whether the call is over, so that `end` cannot miss it."""
        self._inside.append(None)
        try:
            if not self.over:
                self.work(BaseException)
        finally:
            self._inside.pop()
            _release(self._left)

    def end(self) -> None:
        """Let nobody begin another block, and wait for those who are at one, also when a signal handler raises."""
        self.over, late = True, None
        while self._inside:
            try:
                self._left.acquire()
            except BaseException as error:
                late = error
        self._fill = _nothing  # it has the caller's arrays
        if late is not None:
            try:
                raise late
            finally:
                del late  # the traceback has this frame


def _nothing(start: int) -> None:
    """What a call does that is over."""


def _release(lock: threading.Lock) -> None:
    """Wake who waits for a lock, or will; nothing where that was done already."""
    with contextlib.suppress(RuntimeError):
        lock.release()


class _Worker:
    """A thread that helps with one call after another; it is started when it is first asked."""

    def __init__(self) -> None:
        self.call = _Call(_nothing, ())
        self.call.over = True
        self._go = threading.Lock()
        self._go.acquire()
        self._ended = False
        self._cpus: set[int] = set()
        self._thread: threading.Thread | None = None

    def ask(self, call: _Call, cpus: set[int]) -> bool:
        """Help with a call, on these CPUs, unless there is another one; False where there is.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not self.call.over:
            return False
        if self._thread is None or not self._thread.is_alive():
            # A daemon: it must not keep a program from ending.
            self._thread = threading.Thread(target=self._work, name="aeedge", daemon=True)
            self._thread.start()
        self._set_affinity(cpus)
        self.call = call
        _release(self._go)
        return True

    def _set_affinity(self, cpus: set[int]) -> None:
        """Run on these CPUs from now on; nothing where the system forbids it."""
        if cpus and cpus != self._cpus and self._thread is not None and self._thread.native_id is not None:
            self._cpus = cpus
            try:
                os.sched_setaffinity(self._thread.native_id, cpus)
            except OSError as error:
                if not of_system(error):
                    raise

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            self._go.acquire()
            if self._ended or self._thread is not me:
                _release(self._go)  # for the other thread, where a start that was interrupted was repeated
                return
            self.call.help()

    def end(self) -> None:
        """End the thread after its work."""
        self._ended = True
        _release(self._go)

    def join(self) -> None:
        """Wait until the thread has ended."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and thread.is_alive():
            thread.join()


def try_to_start(count: int) -> None:
    """Start so many threads at once, and let them end: onnxruntime hangs if it gets some of a pool's, but not all.

    Raises:
        RuntimeError: they cannot be started; see `cannot_start`.
    """
    hold, started = threading.Lock(), []
    with hold:
        for _ in range(count):
            started.append(threading.Thread(target=_pass, args=(hold,), name="aeedge-trial", daemon=True))
            started[-1].start()
    for thread in started:
        thread.join()


def _pass(lock: threading.Lock) -> None:
    with lock:
        pass


def cannot_start(error: RuntimeError) -> bool:
    """Whether this is Python's error that no thread can be started; if so, it warns, unless the program ends."""
    text = str(error)
    if "new thread" not in text:
        return False
    if "shutdown" not in text:
        warnings.warn(
            "no more threads can be started, so calls take longer; raise the limit ('ulimit -u', TasksMax=)",
            stacklevel=1,  # one place for all, so that it is shown once
        )
    return True


class ThreadPool:
    """Runs a function over the beginnings of blocks on `threads` threads, the caller's among them. Survives fork."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers: list[_Worker] = []
        self._process = os.getpid()
        self._closed = False

    def run(self, fill: Callable[[int], None], starts: Sequence[int]) -> None:
        """Call `fill` for each start; the first block that fails, in their order, raises its error here.

        When this returns or raises, by a signal handler too, no thread is in `fill` any more, nor will be.
        """
        call = _Call(fill, starts)
        try:
            try:
                self._ask_for_help(call, min(self.threads, len(starts)) - 1)
                call.work(InputError)  # any other error here ends the call: it may be of a signal handler
            finally:
                call.end()
        finally:
            call.end()  # where the one above was interrupted before it could begin
        if call.failures:  # blocks are begun in order, so the first failing row is among them
            try:
                raise min(call.failures, key=lambda failure: failure[0])[1]
            finally:
                call.failures.clear()  # the error's traceback has this frame: a cycle would keep the caller's arrays

    def _ask_for_help(self, call: _Call, count: int) -> None:
        """Ask up to `count` workers that have nothing to do; new ones as long as there are fewer than allowed."""
        if self._process != os.getpid():  # a forked child has none of its parent's threads
            self._workers, self._process = [], os.getpid()
        # Linux wakes a thread where it slept, which may be where its caller is: one would wait for the other.
        elsewhere = other_cpus()
        for i in range(self.threads - 1):
            if count <= 0 or self._closed:
                return
            if i == len(self._workers):
                self._workers.append(_Worker())
            try:
                count -= self._workers[i].ask(call, elsewhere)
            except RuntimeError as error:
                if not cannot_start(error):
                    raise  # of a signal handler
                return

    def close(self) -> None:
        """End the threads, after their work. Calls do without from then on."""
        self._end()
        if self._process == os.getpid():
            for worker in self._workers:
                worker.join()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):  # not where the constructor was interrupted
            self._end()

    def _end(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.end()
